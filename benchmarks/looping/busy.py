"""An inference worker that never rests."""

from __future__ import annotations

import dataclasses

from robopolicy.core.specs import PolicySpecs
from robopolicy.runtime import Request, Response, WorkerClient


class BusyClient:
    """Asks again, with the newest observation, as soon as an answer has come; the control loop sees only the
    answers to its own requests, which wait for the one being computed at most.

    Args:
        client: closed by whoever made it.
    """

    def __init__(self, client: WorkerClient) -> None:
        self._client = client
        self._newest: Request | None = None
        self._asked = self._wanted = 0
        self.computing_ns = 0
        self.answers = 0

    @property
    def policy_specs(self) -> PolicySpecs:
        return self._client.policy_specs

    def request(self, request: Request) -> int:
        self._newest = request
        self._wanted = self._client.request(request)
        return self._wanted

    def poll(self, now_ns: int) -> Response | None:
        response = self._client.poll(now_ns)
        if response is None:
            return None
        self.computing_ns += response.inference_ns
        self.answers += 1
        if response.request_id < self._wanted:  # the loop's own is next
            return None
        if self._newest is not None:
            self._client.request(dataclasses.replace(self._newest))
        return response if response.request_id == self._wanted else None
