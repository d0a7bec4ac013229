"""A real-time run: its parts, its limits, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy.core.plant import Plant
from robopolicy.runtime.clock import monotonic_ns, sleep_until_ns
from robopolicy.runtime.control.loop import ControlLoop, Held, OnTick
from robopolicy.runtime.control.monitors import Monitors
from robopolicy.runtime.control.preconditions import garbage_collection_off
from robopolicy.runtime.control.realtime import USUAL, RealtimeConfig, applied
from robopolicy.runtime.control.run_log import RunResult
from robopolicy.runtime.control.stop_signals import StopSignals
from robopolicy.runtime.inference.client import InferenceClient
from robopolicy.runtime.remote.layout import text_bytes
from robopolicy.runtime.safety.filter import SafetyFilter
from robopolicy.runtime.scheduling.scheduler import ChunkScheduler

WHEN_STARVED = ("tail", "stop")


@dataclass(frozen=True)
class RunConfig:
    """One real-time episode.

    Args:
        duration_s: longest run [s].
        seed, episode: the noise of request number k is keyed by (seed, episode, k).
        num_candidates: per request; executed is the one that the client chose, the first without reranking.
        max_failures: consecutive failed inferences that end the run.
        stop_s: longest braking at the end [s]; more where the limits need it, but not at rest is a fault.
        instruction: what to do, in words, at most 512 bytes; empty for none.
        when_starved: where a chunk ends before the next has come: follow its braking "tail", which is
            gentle, or "stop" as fast as the limits allow and begin again from rest.
        clock_jump_s: a tick this late is a clock jump [s]; 0 means five control periods. A simulated arm,
            which waits for its commands, can do with more.
        realtime: what the loop asks of the operating system, on its own clock.
    """

    duration_s: float
    seed: int = 0
    episode: int = 0
    num_candidates: int = 1
    max_failures: int = 1
    stop_s: float = 2.0
    instruction: str = ""
    when_starved: str = "tail"
    clock_jump_s: float = 0.0
    realtime: RealtimeConfig = field(default_factory=RealtimeConfig)

    def __post_init__(self) -> None:
        if not self.duration_s > 0 or not self.stop_s > 0 or min(self.max_failures, self.num_candidates) < 1:
            raise ConfigError("duration_s and stop_s must be positive [s], max_failures, num_candidates >= 1")
        if not 0 <= self.seed < 2**63 or not 0 <= self.episode < 2**63:
            raise ConfigError(f"seed and episode must be 0..2^63 - 1, got {self.seed} and {self.episode}")
        text_bytes(self.instruction)
        if self.when_starved not in WHEN_STARVED:
            raise UnknownNameError("when_starved", self.when_starved, WHEN_STARVED)
        if not self.clock_jump_s >= 0:
            raise ConfigError(f"clock_jump_s must be >= 0 [s], got {self.clock_jump_s}")


def run_realtime(
    plant: Plant,
    client: InferenceClient,
    scheduler: ChunkScheduler,
    safety: SafetyFilter,
    config: RunConfig,
    *,
    monitors: Monitors | None = None,
    deadman: Held | None = None,
    on_tick: OnTick | None = None,
    clock: Callable[[], int] = monotonic_ns,
    sleep_until: Callable[[int], None] = sleep_until_ns,
) -> RunResult:
    """Drive a plant with a policy until ``on_tick`` ends it, time is up, or a fault; then brake to rest.

    Each tick: sleep to the deadline; at policy instants, observe; take up a chunk that has come; send
    the reference for the end of this tick through the safety filter; then ask for the next chunk if it
    is due. An instant missed by a whole period is skipped, never made up for in a burst, and an arm that
    stopped meanwhile goes on from rest (see ``HoldUp``). Garbage collection is off. The arm starts from rest
    where it is measured: a first chunk that begins elsewhere is approached within the safety filter's
    limits, and an arm outside them is brought in.

    A fault (see ``faults.FAULTS``) trips the safety filter and ends in a result. A worker that is being
    started again is none: the arm brakes at once, and the run goes on from rest when the worker is back.
    SIGTERM, SIGINT and SIGHUP end the run like ``on_tick`` does; one that comes while it brakes is in the
    result's ``signal``. Whatever else is raised, by ``on_tick`` say, is raised again after braking. A driver
    that fails while braking is tried again each tick.

    Args:
        plant: its specs must fit the policy's; its stamps are on ``clock``.
        client: worker or in-process; not closed here.
        monitors: of the sensors; None watches stamps and the measured joints alone.
        deadman: without its being held the run is a fault; None needs none, as in simulation.
        on_tick: success or termination check; runs inside the tick, so it must be quick.
        clock, sleep_until: monotonic [ns].
    Raises:
        SpecError: plant and policy disagree.
        ConfigError: scheduler or safety filter were made for another policy or rate.
        whatever the plant raises: after braking, each tick of which is tried.
    """
    monitors = monitors or Monitors(client.policy_specs)
    loop = ControlLoop(plant, client, scheduler, safety, config, monitors, deadman)
    # A clock of the caller's own, a simulated one say, needs no operating system to wake it.
    realtime = config.realtime if sleep_until is sleep_until_ns else USUAL
    with garbage_collection_off(), StopSignals() as stop, applied(realtime) as granted:
        return loop.run(clock, sleep_until, on_tick, stop, granted)
