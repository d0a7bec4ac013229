"""The control loop: absolute deadlines, observations at policy rate, no waiting for inference."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from robopolicy.core.errors import ConfigError, NonFiniteValueError, ShapeError, SpecError, WorkerError
from robopolicy.core.geometry import Float
from robopolicy.core.history import History
from robopolicy.core.plant import Plant
from robopolicy.runtime.client import InferenceClient, Request
from robopolicy.runtime.clock import monotonic_ns, sleep_until_ns
from robopolicy.runtime.preconditions import check_plant, check_timing, garbage_collection_off
from robopolicy.runtime.run_log import RunLog, RunResult
from robopolicy.runtime.safety import SafetyFilter
from robopolicy.runtime.scheduler import ChunkScheduler

#: Called after every tick with (tick, deadline_ns, command); a text ends the run with it as the reason.
OnTick = Callable[[int, int, Float], "str | None"]


@dataclass(frozen=True)
class RunConfig:
    """One real-time episode.

    Args:
        duration_s: longest run [s].
        seed, episode: the noise of request number k is keyed by (seed, episode, k).
        num_candidates: per request; the first is executed.
        max_failures: consecutive failed inferences that end the run.
        stop_s: longest braking at the end [s].
    """

    duration_s: float
    seed: int = 0
    episode: int = 0
    num_candidates: int = 1
    max_failures: int = 3
    stop_s: float = 2.0

    def __post_init__(self) -> None:
        if not self.duration_s > 0 or not self.stop_s > 0 or min(self.max_failures, self.num_candidates) < 1:
            raise ConfigError("duration_s and stop_s must be positive [s], max_failures, num_candidates >= 1")
        if min(self.seed, self.episode) < 0:
            raise ConfigError(f"seed and episode must be >= 0, got {self.seed} and {self.episode}")


def run_realtime(
    plant: Plant,
    client: InferenceClient,
    scheduler: ChunkScheduler,
    safety: SafetyFilter,
    config: RunConfig,
    *,
    on_tick: OnTick | None = None,
    clock: Callable[[], int] = monotonic_ns,
    sleep_until: Callable[[int], None] = sleep_until_ns,
) -> RunResult:
    """Drive a plant with a policy until ``on_tick`` ends it, time is up, or a fault; then brake to rest.

    Each tick: sleep to the deadline; at policy instants, observe; take up a chunk that has come; send
    the reference for the end of this tick through the safety filter; then ask for the next chunk if it
    is due. An instant missed by a whole period is skipped, never made up for in a burst. Garbage
    collection is off meanwhile. The arm starts from rest where it is measured: a first chunk that begins
    elsewhere is approached within the safety filter's limits, and an arm outside them is brought in.

    A dead worker, repeated failures of inference and observations that break the specs are faults and
    end in a result; whatever else is raised, by ``on_tick`` say, is raised again after braking.

    Args:
        plant: its specs must fit the policy's; its stamps are on ``clock``.
        client: worker or in-process; not closed here.
        on_tick: success or termination check; runs inside the tick, so it must be quick.
        clock, sleep_until: monotonic [ns].
    Raises:
        SpecError: plant and policy disagree.
        ConfigError: scheduler or safety filter were made for another policy or rate.
        whatever the plant raises: braking is tried, and fails where the driver does.
    """
    loop = _Loop(plant, client, scheduler, safety, config, clock)
    with garbage_collection_off():
        return loop.run(sleep_until, on_tick)


class _Loop:
    def __init__(
        self,
        plant: Plant,
        client: InferenceClient,
        scheduler: ChunkScheduler,
        safety: SafetyFilter,
        config: RunConfig,
        clock: Callable[[], int],
    ) -> None:
        specs = client.policy_specs
        check_plant(plant, specs)
        check_timing(plant, specs, scheduler, safety)
        self._plant, self._client, self._scheduler, self._safety = plant, client, scheduler, safety
        self._config, self._clock, self._specs = config, clock, specs
        self._history = History(specs)
        self._log = RunLog()
        self._states = [n for n, s in specs.specs.observation.items() if s.kind == "state"]
        self._tick_ns = 1e9 / plant.control_rate
        self._step_ns = 1e9 / specs.specs.policy_rate
        self._step = self._requests = self._failures = 0
        self._pending: int | None = None  # id of the request whose answer is awaited

    def run(self, sleep_until: Callable[[int], None], on_tick: OnTick | None) -> RunResult:
        self._start_ns = self._clock()
        before = Counter(self._safety.counts)
        counted = dataclasses.asdict(self._scheduler.counters)
        position = self._plant.measured()
        self._safety.reset(position)
        self._scheduler.reset(position, self._start_ns)
        tick, reason, fault = 0, "", False
        last_tick = round(self._config.duration_s * self._plant.control_rate)
        try:
            while tick < last_tick and not reason:
                deadline_ns = self._wait(tick, sleep_until)
                command = self._control(deadline_ns)
                if on_tick is not None:
                    reason = on_tick(tick, deadline_ns, command) or ""
                tick = self._finish_tick(tick)
        except (WorkerError, NonFiniteValueError, ShapeError, SpecError) as error:
            reason, fault = str(error), True
        except KeyboardInterrupt:
            reason = "interrupted"
        except BaseException:
            self._brake(tick, sleep_until)
            raise
        ticks = len(self._log.commands)
        self._brake(tick, sleep_until)
        after = dataclasses.asdict(self._scheduler.counters)
        return self._log.result(
            reason=reason or "duration",
            fault=fault,
            ticks=ticks,
            interventions=dict(self._safety.counts - before),
            scheduler={name: after[name] - counted[name] for name in after},
            action_dim=self._specs.specs.action.dim,
        )

    def _wait(self, tick: int, sleep_until: Callable[[int], None]) -> int:
        deadline_ns = self._start_ns + round(tick * self._tick_ns)
        sleep_until(deadline_ns)
        self._began_ns = self._clock()
        return deadline_ns

    def _control(self, deadline_ns: int) -> Float:
        observed_ns = self._observe(deadline_ns)
        self._take_up_chunk(deadline_ns)
        reference, _ = self._scheduler.reference(deadline_ns + round(self._tick_ns))
        command, _ = self._safety.filter(reference)
        self._send(deadline_ns, reference, command)
        if observed_ns is not None and self._scheduler.should_request(observed_ns):
            self._request(observed_ns)
        return command

    def _observe(self, deadline_ns: int) -> int | None:
        """At policy instants: push the newest observation, return the time of its states."""
        if deadline_ns - self._start_ns < round(self._step * self._step_ns):
            return None
        self._step = int((deadline_ns - self._start_ns + 1) / self._step_ns) + 1
        stamped = self._plant.observe()
        self._history.push({name: stamped[name].value for name in self._specs.specs.observation})
        self._oldest_ns = min(stamped[name].time_ns for name in self._specs.specs.observation)
        # Cameras lag behind as they did in the recordings; the chunk's timing follows the joints.
        return min(stamped[name].time_ns for name in self._states or self._specs.specs.observation)

    def _take_up_chunk(self, deadline_ns: int) -> None:
        response = self._client.poll(self._began_ns)
        if response is None:
            return
        if response.request_id != self._pending:  # of the run before this one, say
            self._log.stale_responses += 1
            return
        self._pending = None
        try:
            if response.candidates is None:
                raise NonFiniteValueError(response.error)
            # The last tick's reference was for this deadline: that is how far the arm is committed.
            self._scheduler.accept(response.candidates[0], response.observation_time_ns, deadline_ns)
        except (NonFiniteValueError, ShapeError) as error:
            self._scheduler.mark_failed()
            self._log.failed_inferences.append(str(error))
            self._failures += 1
            if self._failures >= self._config.max_failures:
                count = self._failures
                raise WorkerError(f"{count} inferences failed in a row, the last: {error}") from error
            return
        self._failures = 0
        self._log.inference_ns.append(response.inference_ns)
        self._log.delay_ns.append(self._began_ns - response.observation_time_ns)

    def _request(self, observed_ns: int) -> None:
        config = self._config
        self._pending = self._client.request(
            Request(
                observation=self._history.window(),
                observation_time_ns=observed_ns,
                noise_key=(config.seed, config.episode, self._requests),
                num_candidates=config.num_candidates,
            )
        )
        self._requests += 1
        self._scheduler.mark_requested(observed_ns)
        self._log.observation_age_ns.append(self._began_ns - self._oldest_ns)

    def _send(self, deadline_ns: int, reference: Float, command: Float) -> None:
        self._plant.command(command)
        self._log.time_ns.append(deadline_ns)
        self._log.lateness_ns.append(self._began_ns - deadline_ns)
        self._log.references.append(reference)
        self._log.commands.append(command)

    def _finish_tick(self, tick: int) -> int:
        """Number of the next tick that can still be met."""
        now_ns = self._clock()
        self._log.busy_ns.append(now_ns - self._began_ns)
        nearest = int((now_ns - self._start_ns) / self._tick_ns)
        skipped = max(nearest - tick - 1, 0)
        self._log.missed_ticks += skipped
        return tick + 1 + skipped

    def _brake(self, tick: int, sleep_until: Callable[[int], None]) -> None:
        if len(self._log.busy_ns) < len(self._log.commands):  # a fault came after this tick's command
            tick = self._finish_tick(tick)
        last_tick = tick + round(self._config.stop_s * self._plant.control_rate)
        while tick < last_tick and not self._safety.at_rest:
            deadline_ns = self._wait(tick, sleep_until)
            command = self._safety.brake()
            self._send(deadline_ns, command, command)
            tick = self._finish_tick(tick)
