"""Latest wins: the one request of a client that waits for its turn."""

from __future__ import annotations

import asyncio

from robopolicy.runtime.remote.messages import RemoteRequest


class Newest:
    """A place for one request; a newer one replaces it."""

    def __init__(self) -> None:
        self._request: RemoteRequest | None = None
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, request: RemoteRequest) -> None:
        self._request = request
        self._changed.set()

    def take(self) -> RemoteRequest | None:
        request, self._request = self._request, None
        if not self._ended:
            self._changed.clear()
        return request

    def end(self) -> None:
        self._ended, self._request = True, None
        self._changed.set()

    async def wait(self) -> bool:
        """Until there is a request, or False when none will come."""
        await self._changed.wait()
        return not self._ended
