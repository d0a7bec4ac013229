"""The control loop: absolute deadlines, observations at policy rate, no waiting for inference."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from robopolicy.core.errors import NonFiniteValueError, ShapeError, SpecError, WorkerError
from robopolicy.core.geometry import Float
from robopolicy.core.history import History
from robopolicy.core.plant import Plant
from robopolicy.core.policy import Float32
from robopolicy.runtime.control.faults import FaultError
from robopolicy.runtime.control.hold_up import HoldUp
from robopolicy.runtime.control.monitors import Monitors
from robopolicy.runtime.control.past import past_actions
from robopolicy.runtime.control.preconditions import (
    check_client,
    check_instruction,
    check_plant,
    check_timing,
)
from robopolicy.runtime.control.run_log import RunLog, RunResult
from robopolicy.runtime.control.stop_signals import StopSignals
from robopolicy.runtime.control.ticker import Ticker
from robopolicy.runtime.inference.client import InferenceClient, Request, Response, WorkerRestartError
from robopolicy.runtime.safety.filter import SafetyFilter
from robopolicy.runtime.scheduling.scheduler import ChunkScheduler

if TYPE_CHECKING:
    from robopolicy.runtime.control.runner import RunConfig

#: Called after every tick with (tick, deadline_ns, command); a text ends the run with it as the reason.
OnTick = Callable[[int, int, Float], "str | None"]
_JUMP_PERIODS = 5.0  # of the control loop
_MARGIN_S = 0.2  # beyond what braking takes when every tick comes


class Held(Protocol):
    """What tells whether a person holds the deadman switch; see ``deadman.Deadman``."""

    def held(self, now_ns: int) -> bool: ...


class ControlLoop:
    """One run; see ``run_realtime``, which says what it does."""

    def __init__(
        self,
        plant: Plant,
        client: InferenceClient,
        scheduler: ChunkScheduler,
        safety: SafetyFilter,
        config: RunConfig,
        monitors: Monitors,
        deadman: Held | None,
    ) -> None:
        self._specs = specs = client.policy_specs
        check_plant(plant, specs)
        check_timing(plant, specs, scheduler, safety)
        check_client(client, config.num_candidates)
        check_instruction(specs, config.instruction)
        self._plant, self._client, self._scheduler, self._safety = plant, client, scheduler, safety
        self._config, self._monitors, self._deadman = config, monitors, deadman
        self._history = History(specs)
        self._log = RunLog()
        self._states = [n for n, s in specs.specs.observation.items() if s.kind == "state"]
        self._step_ns = 1e9 / specs.specs.policy_rate
        self._step = self._requests = self._failures = 0
        self._pending: int | None = None  # id of the request whose answer is awaited
        self._held = ""  # why the arm is kept at rest; the run goes on when the cause is over
        self._back = True  # whether there is a worker to ask
        self._starved = False
        self._undelivered: Float | None = None  # the filter counts it, the driver refused it

    def run(
        self,
        clock: Callable[[], int],
        sleep_until: Callable[[int], None],
        on_tick: OnTick | None,
        stop: StopSignals,
        granted: tuple[str, ...],
    ) -> RunResult:
        config, plant = self._config, self._plant
        before, counted = Counter(self._safety.counts), dataclasses.asdict(self._scheduler.counters)
        position = plant.measured()
        self._safety.reset(position)
        jump_s = config.clock_jump_s or _JUMP_PERIODS / plant.control_rate
        self._clock, self._ticker = clock, Ticker(plant.control_rate, clock, sleep_until, jump_s=jump_s)
        self._hold_up = HoldUp(self._ticker.period_ns)
        self._hold_up.sent(position)
        self._scheduler.reset(position, self._ticker.start_ns)
        self._monitors.reset(self._ticker.start_ns)
        last_tick = round(config.duration_s * plant.control_rate)
        reason, fault = "", False
        try:
            while self._ticker.tick < last_tick and not reason:
                deadline_ns = self._ticker.wait()
                command = self._control(deadline_ns)
                if on_tick is not None:
                    reason = on_tick(self._ticker.tick, deadline_ns, command) or ""
                reason = reason or stop.received
                self._finish_tick()
        except (FaultError, WorkerError, NonFiniteValueError, ShapeError, SpecError) as error:
            reason, fault = str(error), True
            self._log.faults[_kind(error)] += 1
            self._safety.trip(_kind(error))
        except KeyboardInterrupt:
            reason = "interrupted"
        except BaseException:
            self._brake()
            raise
        ticks, reason = len(self._log.commands), reason or "duration"
        failure = self._brake()
        if failure is not None:
            raise failure
        if not self._stopped:
            reason, fault = f"{reason}; and not at rest after braking", True
            self._log.faults["not_at_rest"] += 1
        self._log.missed_ticks = self._ticker.missed
        self._log.faults = +(self._log.faults + self._monitors.counts)
        after = dataclasses.asdict(self._scheduler.counters)
        return self._log.result(
            reason=reason,
            fault=fault,
            ticks=ticks,
            interventions=dict(self._safety.counts - before),
            scheduler={name: after[name] - counted[name] for name in after},
            action_dim=self._specs.specs.action.dim,
            realtime=granted,
            signal=stop.received,
        )

    def _control(self, deadline_ns: int) -> Float:
        now_ns = self._ticker.began_ns
        if self._deadman is not None and not self._deadman.held(now_ns):
            self._safety.trip("deadman")
        self._check_latch()
        measured = self._plant.measured()
        if self._rest_if_it_stood(measured) > self._step_ns:  # the plan is of another time
            self._scheduler.reset(self._safety.position, deadline_ns)
            self._pending = None
        self._monitors.moved(measured, self._safety.position, now_ns)
        observed_ns = self._observe(deadline_ns, measured)
        self._take_up_chunk(deadline_ns)
        self._let_go(deadline_ns)
        reference = None if self._held else self._reference(deadline_ns)
        if reference is None:
            reference = command = self._safety.brake()
            reasons: tuple[str, ...] = ("brake",)
            age_s = 0.0
        else:
            age_s = (self._clock() - self._oldest_ns) * 1e-9
            command, reasons = self._safety.filter(reference, measured=measured, observation_age_s=age_s)
        self._send(deadline_ns, reference, command, reasons)
        self._check_latch()
        self._monitors.filtered(reasons, age_s, now_ns)
        if observed_ns is not None and not self._held and self._scheduler.should_request(observed_ns):
            self._request(observed_ns)
        return command

    def _check_latch(self) -> None:
        """Tripped by somebody else between ticks, or by the filter itself within one."""
        if self._safety.latched:
            raise FaultError("latched", f"the safety filter was tripped: {self._safety.latched}")

    def _observe(self, deadline_ns: int, measured: Float) -> int | None:
        """At policy instants: push the newest observation, return the time of its states."""
        since_ns = deadline_ns - self._ticker.start_ns
        if since_ns < round(self._step * self._step_ns):
            return None
        self._step = int((since_ns + 1) / self._step_ns) + 1
        stamped = self._plant.observe()
        names, now_ns = self._specs.specs.observation, self._clock()
        for name in names:
            ahead_ns = stamped[name].time_ns - now_ns
            if ahead_ns > self._ticker.period_ns:
                text = f"{name!r} lies {ahead_ns * 1e-9:.3f} s in the future: is it on the loop's clock?"
                raise FaultError("observation", text)
        self._history.push({name: stamped[name].value for name in names})
        self._monitors.observed(stamped, measured, self._ticker.began_ns)
        self._oldest_ns = min(stamped[name].time_ns for name in names)
        # Cameras lag behind as they did in the recordings; the chunk's timing follows the joints.
        return min(stamped[name].time_ns for name in self._states or names)

    def _poll(self) -> Response | None:
        try:
            return self._client.poll(self._ticker.began_ns)
        except WorkerRestartError as error:
            self._lost(error)
            return None

    def _lost(self, error: WorkerRestartError) -> None:
        """The worker is being started again: hold, and count its loss once."""
        self._back = False
        if self._held != "worker":
            self._held = "worker"
            self._log.faults["worker"] += 1
            self._log.restarts += 1
            self._log.failed_inferences.append(str(error))

    def _let_go(self, deadline_ns: int) -> None:
        """Go on from rest once the cause is over; a chunk is asked for with a fresh observation."""
        if self._held and self._back and self._safety.at_rest:
            self._scheduler.reset(self._safety.position, deadline_ns)
            self._held, self._pending, self._starved = "", None, False

    def _reference(self, deadline_ns: int) -> Float | None:
        """For the end of this tick; None when the arm is to stop since there is no chunk for it."""
        before = self._scheduler.counters.starved_ticks
        reference, _ = self._scheduler.reference(deadline_ns + round(self._ticker.period_ns))
        starved = self._scheduler.counters.starved_ticks > before
        self._log.faults["late_chunk"] += int(starved and not self._starved)
        self._starved = starved
        if starved and self._config.when_starved == "stop":
            self._held = "late_chunk"
            return None
        return reference

    def _take_up_chunk(self, deadline_ns: int) -> None:
        self._back = True
        response = self._poll()
        if response is None:
            return
        if response.request_id != self._pending or self._held:  # of the run before this one, say
            self._log.stale_responses += 1
            return
        self._pending = None
        try:
            # The last tick's reference was for this deadline: that is how far the arm is committed.
            if self._scheduler.accept(response.chosen, response.observation_time_ns, deadline_ns):
                self._log.joins_ns.append(deadline_ns)
                self._log.responses.append(response)
        except (NonFiniteValueError, ShapeError) as error:
            self._refuse(error)
            return
        self._failures = 0
        self._log.inference_ns.append(response.inference_ns)
        self._log.delay_ns.append(self._ticker.began_ns - response.observation_time_ns)

    def _refuse(self, error: NonFiniteValueError | ShapeError) -> None:
        self._scheduler.mark_failed()
        self._log.failed_inferences.append(str(error))
        self._failures += 1
        if self._failures >= self._config.max_failures:
            count = self._failures
            text = f"{count} inferences failed in a row, the last: " if count > 1 else "an inference failed: "
            raise FaultError("inference", text + str(error)) from error

    def _request(self, observed_ns: int) -> None:
        config, binds = self._config, self._scheduler.binds
        chooses = config.num_candidates > 1
        request = Request(
            observation=self._history.window(),
            observation_time_ns=observed_ns,
            noise_key=(config.seed, config.episode, self._requests),
            num_candidates=config.num_candidates,
            instruction=config.instruction,
            prefix=self._scheduler.committed(observed_ns) if chooses or binds else None,
            binds=binds,
            past=self._past(observed_ns) if chooses else None,
        )
        try:
            self._pending = self._client.request(request)
        except WorkerRestartError as error:
            self._lost(error)
            return
        self._requests += 1
        self._scheduler.mark_requested(observed_ns)
        self._log.observation_age_ns.append(self._clock() - self._oldest_ns)

    def _past(self, observed_ns: int) -> Float32:
        log, tick_ns = self._log, round(self._ticker.period_ns)
        return past_actions(self._specs, observed_ns, log.time_ns, log.commands, tick_ns)

    def _send(self, deadline_ns: int, reference: Float, command: Float, reasons: tuple[str, ...]) -> None:
        self._undelivered = command
        self._plant.command(command)
        self._undelivered = None
        self._hold_up.sent(command)
        self._log.time_ns.append(deadline_ns)
        self._log.lateness_ns.append(self._ticker.began_ns - deadline_ns)
        self._log.references.append(reference)
        self._log.commands.append(command)
        self._log.reasons.append(reasons)

    def _rest_if_it_stood(self, measured: Float) -> int:
        """An arm that stopped for want of commands goes on from rest; gives for how long it had none [ns]."""
        stood_ns = self._hold_up.stood_ns(measured, self._ticker.began_ns)
        if stood_ns:
            self._safety.reset(self._hold_up.rest())
            self._undelivered = None
        return stood_ns

    def _finish_tick(self) -> None:
        busy_ns = self._ticker.finish()
        if len(self._log.busy_ns) < len(self._log.commands):
            self._log.busy_ns.append(busy_ns)

    @property
    def _stopped(self) -> bool:
        return self._safety.at_rest and self._undelivered is None

    def _brake(self) -> Exception | None:
        """To rest, or until time is up; gives the driver's first failure, which does not end it."""
        # A fault came after this tick's command, or the driver refused it.
        if len(self._log.busy_ns) < len(self._log.commands) or self._undelivered is not None:
            self._finish_tick()
        failure: Exception | None = None
        stop_s = max(self._config.stop_s, self._safety.stop_time_s + _MARGIN_S)
        last_tick = self._ticker.tick + round(stop_s * self._plant.control_rate)
        while self._ticker.tick < last_tick and not self._stopped:
            try:
                deadline_ns = self._ticker.wait()
            except FaultError:  # the clock again: deadlines count from where it is now
                deadline_ns = self._ticker.began_ns
            try:
                self._brake_on(deadline_ns)
            except Exception as error:  # whatever a driver raises
                failure = failure or error
            self._finish_tick()
        return failure

    def _brake_on(self, deadline_ns: int) -> None:
        """One tick of it. What the driver refused is sent again: the arm has gone no further."""
        with contextlib.suppress(Exception):  # the driver's; commands may still get through
            self._rest_if_it_stood(self._plant.measured())
        command = self._undelivered if self._undelivered is not None else self._safety.brake()
        self._send(deadline_ns, command, command, ("brake",))


def _kind(error: Exception) -> str:
    """Of a fault; a key of ``faults.FAULTS``."""
    if isinstance(error, FaultError):
        return error.kind
    return "worker" if isinstance(error, WorkerError) else "observation"
