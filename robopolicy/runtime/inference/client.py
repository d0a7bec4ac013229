"""Asking for chunks without waiting for them: the messages and the interface of every transport."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from robopolicy.core.errors import ConfigError, RobopolicyError, WorkerError
from robopolicy.core.policy import Arrays, Float32, Policy, draw_candidates, keyed_rng
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.clock import monotonic_ns


@dataclass(frozen=True)
class Request:
    """One observation window to be answered with candidates.

    Args:
        observation: each (observation_horizon, *shape), oldest first.
        observation_time_ns: of the current observation, monotonic.
        noise_key: (seed, episode, step) all >= 0; the noise depends on it alone, so a run can be repeated
            from its observations.
        num_candidates: n.
        instruction: what to do, in words; empty for none.
        prefix: actions (prediction_horizon, action_dim) and weights (prediction_horizon,), see
            ``core.policy.Prefix``; None for none.
    """

    observation: Arrays
    observation_time_ns: int
    noise_key: tuple[int, int, int]
    num_candidates: int = 1
    instruction: str = ""
    prefix: tuple[Float32, Float32] | None = None

    def __post_init__(self) -> None:
        if min(self.noise_key) < 0 or self.num_candidates < 1:
            raise ConfigError(f"noise_key {self.noise_key} or num_candidates {self.num_candidates} too small")


@dataclass(frozen=True)
class Response:
    """What came back for one request.

    Args:
        request_id: as ``InferenceClient.request`` gave it.
        candidates: (n, prediction_horizon, action_dim) in the action spec's units; None after an error.
        inference_ns: time spent computing.
        error: why there are no candidates; empty when there are.
    """

    request_id: int
    observation_time_ns: int
    candidates: Float32 | None
    inference_ns: int
    error: str = ""


class WorkerRestartError(WorkerError):
    """What computes was lost and is being started again; nothing may be asked until ``poll`` is silent."""


class InferenceClient(Protocol):
    """Latest wins: a newer request replaces one that was not begun, and only the newest answer counts."""

    @property
    def policy_specs(self) -> PolicySpecs: ...

    def request(self, request: Request) -> int:
        """Hand over a request and return its id at once."""
        ...

    def poll(self, now_ns: int) -> Response | None:
        """The newest answer not yet seen, at once; to be called every control tick.

        Raises:
            WorkerError: what computes is dead or hangs; says which and why.
            WorkerRestartError: the same, but it will be back; at every call until then.
        """
        ...


class LocalClient:
    """Computes within ``request``, in the caller's process: for tests and debugging, not for a control loop.

    Args:
        policy: any.
        clock: monotonic [ns].
    """

    def __init__(self, policy: Policy, clock: Callable[[], int] = monotonic_ns) -> None:
        self._policy, self._clock = policy, clock
        self._next_id = 1
        self._response: Response | None = None

    @property
    def policy_specs(self) -> PolicySpecs:
        return self._policy.policy_specs

    def request(self, request: Request) -> int:
        request_id, started_ns = self._next_id, self._clock()
        self._next_id += 1
        candidates, error = answer(self._policy, request)
        elapsed_ns = self._clock() - started_ns
        self._response = Response(request_id, request.observation_time_ns, candidates, elapsed_ns, error)
        return request_id

    def poll(self, now_ns: int) -> Response | None:
        response, self._response = self._response, None
        return response


def answer(policy: Policy, request: Request) -> tuple[Float32 | None, str]:
    """Candidates for one request, or the text of the error that prevented them."""
    rng = keyed_rng(*request.noise_key)
    try:
        candidates = draw_candidates(
            policy,
            request.observation,
            request.num_candidates,
            rng=rng,
            instruction=request.instruction,
            prefix=request.prefix,
        )
        return candidates, ""
    except (RobopolicyError, MemoryError) as error:
        return None, f"{type(error).__name__}: {error}"
