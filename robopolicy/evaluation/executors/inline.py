"""Environments in the calling process: for tests, debuggers, and environments that cannot be pickled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robopolicy.core.specs import PolicySpecs
from robopolicy.evaluation.executors import Lost
from robopolicy.evaluation.hosting import Answer, EnvHost, Request


class InlineExecutor:
    """Does what is asked when the answer is waited for."""

    def __init__(self, make: Callable[[], Any], specs: PolicySpecs) -> None:
        self._host = EnvHost(make, specs)
        self._waiting: list[Request] = []

    def send(self, request: Request) -> None:
        self._waiting.append(request)

    def receive(self) -> list[Answer | Lost]:
        requests, self._waiting = self._waiting, []
        return [self._host.handle(request) for request in requests]

    def close(self) -> None:
        self._host.close()


def start(make: Callable[[], Any], specs: PolicySpecs, workers: int) -> InlineExecutor:
    """``workers`` is of no meaning here."""
    return InlineExecutor(make, specs)
