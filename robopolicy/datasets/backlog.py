"""What a recorder has handed over and its thread has not yet written: bounded in number and in age."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Backlog(Generic[T]):
    """A queue whose ``put`` waits while it is too long or its oldest item too old, for a crash loses it.

    Args:
        limit: items at most.
        age_s: of the oldest item, before others may follow [s].
        now_s: seconds, monotonic.
    """

    def __init__(self, limit: int, age_s: float, now_s: Callable[[], float]) -> None:
        self._limit, self._age_s, self._now = limit, age_s, now_s
        self._items: deque[tuple[float, T]] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T) -> None:
        with self._changed:
            while self._is_behind():
                self._changed.wait()
            self._items.append((self._now(), item))
            self._changed.notify_all()

    def close(self) -> None:
        """No more items; ``first`` gives None once the rest is done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def first(self, timeout_s: float) -> T | None:
        """The oldest item, which stays until ``done``; None when there is none for so long, or no more."""
        with self._changed:
            if not self._items and not self._closed:
                self._changed.wait(timeout_s)
            return self._items[0][1] if self._items else None

    def done(self) -> None:
        """The oldest item is dealt with."""
        with self._changed:
            self._items.popleft()
            self._changed.notify_all()

    @property
    def is_over(self) -> bool:
        """Closed and empty."""
        with self._changed:
            return self._closed and not self._items

    def _is_behind(self) -> bool:
        if not self._items:
            return False
        return len(self._items) >= self._limit or self._now() - self._items[0][0] > self._age_s
