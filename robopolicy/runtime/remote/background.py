"""A policy server in a thread: for tests, benchmarks and notebooks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from robopolicy.runtime.remote.server import PolicyServer


@contextlib.contextmanager
def serving(server: PolicyServer) -> Iterator[str]:
    """Serve from a thread while the context lasts; gives the URL."""
    url: list[str] = []
    failed: list[BaseException] = []
    started = threading.Event()
    control: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        stop = asyncio.Event()
        control.append((asyncio.get_running_loop(), stop))

        def ready(found: str) -> None:
            url.append(found)
            started.set()

        await server.run(stop, ready)

    def body() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failed.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=body, name="policy server", daemon=True)
    thread.start()
    started.wait()
    if failed:
        thread.join()
        raise failed[0]
    try:
        yield url[0]
    finally:
        loop, stop = control[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()
