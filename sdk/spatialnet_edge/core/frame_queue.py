"""Frame queue: a bounded queue between a source and the engine, with a frame policy."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Condition, Lock
from typing import Generic, TypeVar

from spatialnet_edge.core.errors import UsageError

T = TypeVar("T")

EVERY_CAPACITY = 6
"""Number of frames decoded ahead under `every`: enough to keep the engine busy, few enough for small memories."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Policy for frames that arrive while the engine is busy.

    `every` makes the source wait and drops nothing. `latest` keeps only the newest frame. `queue:N` keeps the newest N. The
    oldest frame is dropped and counted as `overrun`.
    """

    name: str
    capacity: int
    drop_oldest: bool


def parse_policy(text: str) -> Policy:
    """Parse `every`, `latest` or `queue:N`.

    Raises:
        UsageError: any other text.
    """
    name, _, count = text.partition(":")
    if text == "every":
        return Policy(text, EVERY_CAPACITY, drop_oldest=False)
    if text == "latest":
        return Policy(text, 1, drop_oldest=True)
    if name == "queue" and count.isascii() and count.isdigit() and 0 < int(count) <= 10_000:
        return Policy(text, int(count), drop_oldest=True)
    raise UsageError(f"no frame policy '{text}'; use every, latest or queue:N with N from 1 to 10000")


class FrameQueue(Generic[T]):
    """A bounded queue between two threads. When it is full, it either waits or drops the oldest item.

    A producer that waits for room continues when half of the queue is free: one thread switch for several items, not one per
    item.
    """

    def __init__(self, capacity: int, drop_oldest: bool) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._drop_oldest = drop_oldest
        self._closed = False
        self._lock = Lock()
        self._arrived = Condition(self._lock)
        self._emptied = Condition(self._lock)

    def put(self, item: T) -> T | None:
        """Add an item. Returns the dropped item, or the item itself if the queue is closed."""
        with self._lock:
            if len(self._items) >= self._capacity and not self._drop_oldest:
                self._emptied.wait_for(lambda: self._half_empty or self._closed)
            if self._closed:
                return item
            dropped = self._items.popleft() if len(self._items) >= self._capacity else None
            self._items.append(item)
            self._arrived.notify()
            return dropped

    def get(self, timeout: float | None = None) -> T | None:
        """Take the oldest item; None after `timeout` seconds, or if the queue is finished (see `finished`)."""
        with self._lock:
            self._arrived.wait_for(lambda: self._items or self._closed, timeout)
            if not self._items:
                return None
            item = self._items.popleft()
            if self._half_empty:
                self._emptied.notify()
            return item

    @property
    def _half_empty(self) -> bool:
        return len(self._items) <= self._capacity // 2

    def close(self) -> None:
        """Close the queue for new items; items inside can still be taken."""
        with self._lock:
            self._closed = True
            self._arrived.notify_all()
            self._emptied.notify_all()

    @property
    def finished(self) -> bool:
        with self._lock:
            return self._closed and not self._items

    def __len__(self) -> int:
        return len(self._items)
