"""Asking for chunks without waiting for them: the messages and the interface of every transport."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, NonFiniteValueError, RobopolicyError, WorkerError
from robopolicy.core.policy import (
    Arrays,
    Context,
    Float32,
    Policy,
    Prefix,
    draw_candidates,
    draw_noise,
    keyed_rng,
)
from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime.clock import monotonic_ns
from robopolicy.runtime.reranking.reranker import Reranker

_CHOICE = 1  # last part of the key of what chooses, apart from the noise


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
        binds: whether the policy is to heed the prefix; else it only serves to choose among candidates.
        past: (action_start, action_dim), see ``core.policy.Context``; None where nobody keeps it.
    """

    observation: Arrays
    observation_time_ns: int
    noise_key: tuple[int, int, int]
    num_candidates: int = 1
    instruction: str = ""
    prefix: tuple[Float32, Float32] | None = None
    binds: bool = True
    past: Float32 | None = None

    def __post_init__(self) -> None:
        if min(self.noise_key) < 0 or self.num_candidates < 1:
            raise ConfigError(f"noise_key {self.noise_key} or num_candidates {self.num_candidates} too small")


@dataclass(frozen=True)
class Response:
    """What came back for one request.

    Args:
        request_id: as ``InferenceClient.request`` gave it.
        candidates: (drawn, prediction_horizon, action_dim) in the action spec's units; None after an error.
        inference_ns: time spent computing.
        error: why there are no candidates; empty when there are.
        index: of the one to execute.
        values: (drawn,) what they were judged by, NaN where they were not; None where nobody judges.
        asked, scored: how many candidates were wanted, and judged.
        note: what did not go as it was asked for, in words.
        draw_ns, score_ns: of ``inference_ns``.
        deadline_ns: for both together; 0 where there is none.
    """

    request_id: int
    observation_time_ns: int
    candidates: Float32 | None
    inference_ns: int
    error: str = ""
    index: int = 0
    values: NDArray[np.float64] | None = None
    asked: int = 1
    scored: int = 0
    note: str = ""
    draw_ns: int = 0
    score_ns: int = 0
    deadline_ns: int = 0

    @property
    def chosen(self) -> Float32:
        """(prediction_horizon, action_dim)

        Raises:
            NonFiniteValueError: there is none, after an error; gives its text.
        """
        if self.candidates is None:
            raise NonFiniteValueError(self.error)
        chunk: Float32 = self.candidates[self.index]
        return chunk


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
        reranker: of that policy; None executes its first candidate.
    """

    def __init__(
        self, policy: Policy, clock: Callable[[], int] = monotonic_ns, *, reranker: Reranker | None = None
    ) -> None:
        self._policy, self._clock, self._reranker = policy, clock, reranker
        self._next_id = 1
        self._response: Response | None = None

    @property
    def policy_specs(self) -> PolicySpecs:
        return self._policy.policy_specs

    @property
    def num_candidates(self) -> int | None:
        """That are chosen among; None where nobody chooses."""
        return None if self._reranker is None else self._reranker.config.num_candidates

    def request(self, request: Request) -> int:
        request_id = self._next_id
        self._next_id += 1
        self._response = respond(self._policy, request_id, request, self._clock, self._reranker)
        return request_id

    def poll(self, now_ns: int) -> Response | None:
        response, self._response = self._response, None
        return response


def respond(
    policy: Policy,
    request_id: int,
    request: Request,
    clock: Callable[[], int] = monotonic_ns,
    reranker: Reranker | None = None,
) -> Response:
    """Candidates for one request and the choice among them, or the error that prevented them."""
    began_ns = clock()
    try:
        if reranker is None:
            candidates = _draw(policy, request)
            decided: dict[str, Any] = {"draw_ns": clock() - began_ns}
        else:
            candidates, decided = _choose(reranker, request)
    except (RobopolicyError, MemoryError) as error:
        text = f"{type(error).__name__}: {error}"
        return Response(request_id, request.observation_time_ns, None, clock() - began_ns, text)
    return Response(
        request_id,
        request.observation_time_ns,
        candidates,
        clock() - began_ns,
        asked=request.num_candidates,
        **decided,
    )


def answer(policy: Policy, request: Request) -> tuple[Float32 | None, str]:
    """Candidates for one request, or the text of the error that prevented them."""
    response = respond(policy, 0, request)
    return response.candidates, response.error


def _draw(policy: Policy, request: Request) -> Float32:
    return draw_candidates(
        policy,
        request.observation,
        request.num_candidates,
        rng=keyed_rng(*request.noise_key),
        instruction=request.instruction,
        prefix=request.prefix if request.binds else None,
    )


def _choose(reranker: Reranker, request: Request) -> tuple[Float32, dict[str, Any]]:
    """The candidates that were drawn, of the same noise as ``_draw``'s, and the fields of a response."""
    noise = draw_noise(reranker.policy_specs, request.num_candidates, keyed_rng(*request.noise_key))
    prefix = None
    if request.prefix is not None:
        prefix = Prefix(*(np.asarray(part, np.float32)[None] for part in request.prefix))
    past = None if request.past is None else np.asarray(request.past, np.float32)[None]
    choice = reranker.choose(
        {name: value[None] for name, value in request.observation.items()},
        noise[None],
        Context((request.instruction,) if request.instruction else (), prefix, past),
        [keyed_rng(*request.noise_key, _CHOICE)],
        binds=request.binds,
    )
    return choice.candidates[0], {
        "index": int(choice.index[0]),
        "values": choice.total[0],
        "scored": choice.scored if choice.scored > 1 else 0,
        "note": "; ".join(choice.notes),
        "draw_ns": choice.draw_ns,
        "score_ns": choice.score_ns,
        "deadline_ns": choice.deadline_ns,
    }
