"""Environments on a Ray cluster: actors spread over its nodes; one that dies is replaced.

Every node needs robopolicy and the environment's packages installed. The policy stays with the caller.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from robopolicy.core.errors import MissingDependencyError, RobopolicyError, WorkerError
from robopolicy.core.specs import PolicySpecs
from robopolicy.evaluation.executors import Lost
from robopolicy.evaluation.hosting import Answer, EnvHost, Finished, Request

_CLOSE_SECONDS = 10.0


def _import() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError("--executor ray needs: pip install 'robopolicy[ray]'") from error
    return ray


class _Actor:
    """A host whose errors come back as text: exceptions do not all survive pickling."""

    def __init__(self, make: Callable[[], Any], specs: PolicySpecs) -> None:
        self._host = EnvHost(make, specs)

    def handle(self, request: Request) -> Answer | str:
        try:
            return self._host.handle(request)
        except RobopolicyError as error:
            return str(error)

    def node(self) -> str:
        return str(_import().get_runtime_context().get_node_id())

    def close(self) -> None:
        self._host.close()


class RayExecutor:
    """Slot s lives in actor s modulo their number; each actor takes one core, on any node."""

    def __init__(self, make: Callable[[], Any], specs: PolicySpecs, workers: int) -> None:
        self._ray = ray = _import()
        self._started = not ray.is_initialized()
        if self._started:
            # RAY_ADDRESS names a running cluster; without it Ray starts one on this machine alone.
            ray.init(
                address=os.environ.get("RAY_ADDRESS"),
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
            )
        self._make, self._specs = make, specs
        self._actors = [self._start() for _ in range(workers)]
        self._asked: dict[Any, Request] = {}  # future -> what it answers
        self._playing: list[set[int]] = [set() for _ in range(workers)]

    def _start(self) -> Any:
        actor = self._ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(_Actor)
        return actor.remote(self._make, self._specs)

    def send(self, request: Request) -> None:
        place = request.slot % len(self._actors)
        self._playing[place].add(request.slot)
        self._asked[self._actors[place].handle.remote(request)] = request

    def receive(self) -> list[Answer | Lost]:
        """As ``Executor.receive``.

        Raises:
            WorkerError: an environment raised; the message is its error's.
        """
        done, _ = self._ray.wait(list(self._asked), num_returns=1)
        answers: list[Answer | Lost] = []
        for future in done:
            if future not in self._asked:  # of an actor that was just replaced
                continue
            request = self._asked[future]
            place = request.slot % len(self._actors)
            try:
                answer = self._ray.get(future)
            except self._ray.exceptions.RayTaskError as error:
                raise WorkerError(str(error)) from error
            except self._ray.exceptions.RayActorError as error:
                answers.append(self._replace(place, f"a Ray actor died ({type(error).__name__})"))
                continue
            del self._asked[future]
            if isinstance(answer, str):
                raise WorkerError(answer)
            if isinstance(answer, Finished):
                self._playing[place].discard(answer.slot)
            answers.append(answer)
        return answers

    def _replace(self, place: int, reason: str) -> Lost:
        self._asked = {f: r for f, r in self._asked.items() if r.slot % len(self._actors) != place}
        self._actors[place] = self._start()
        return Lost(tuple(sorted(self._playing[place])), reason)

    def nodes(self) -> list[str]:
        """Ids of the nodes that the actors live on, in their order."""
        found: list[str] = self._ray.get([actor.node.remote() for actor in self._actors])
        return found

    def close(self) -> None:
        for actor in self._actors:
            with contextlib.suppress(self._ray.exceptions.RayError):  # dead or hanging: killed all the same
                self._ray.get(actor.close.remote(), timeout=_CLOSE_SECONDS)
            self._ray.kill(actor)
        if self._started:
            self._ray.shutdown()


def start(make: Callable[[], Any], specs: PolicySpecs, workers: int) -> RayExecutor:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine, and place the actors."""
    return RayExecutor(make, specs, workers)
