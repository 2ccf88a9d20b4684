"""How many images are pulled at once and how often a registry is asked: one gate that every pull goes through.

The kubelet fails a pull that comes too often, and its pod waits ten seconds more; here it waits for its turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager


class Place:
    """One of those that pull. Left early by who only waits for an answer, so that others go on."""

    __slots__ = ("_places",)

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places: asyncio.Semaphore | None = places

    def leave(self) -> None:
        if self._places is not None:
            self._places.release()
            self._places = None


class PullGate:
    """`qps` and `burst` are a token bucket's; `qps` 0: as often as wanted."""

    def __init__(self, at_once: int, qps: float, burst: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._qps = qps
        self._burst = max(1, burst)
        self._monotonic = monotonic
        self.idle = asyncio.Event()
        """Set while no pod pulls or waits for its turn."""
        self.idle.set()
        self._inside = 0
        self._free_at = float("-inf")
        """When the bucket is full again: each pull moves it on by 1 / qps."""

    @asynccontextmanager
    async def turn(self, check: Callable[[], None] | None = None) -> AsyncIterator[Place]:
        """Inside, one image may be pulled. `check` raises what is known against it once there is a place."""
        with self._busy():
            await self._places.acquire()
            place = Place(self._places)
            try:
                if check is not None:
                    check()
                if (wait := self._take()) > 0:
                    await asyncio.sleep(wait)
                yield place
            finally:
                place.leave()

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self._inside += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self.idle.set()

    def _take(self) -> float:
        """Take a token; the seconds until it is there."""
        if self._qps <= 0:
            return 0.0
        now = self._monotonic()
        self._free_at = max(self._free_at, now) + 1 / self._qps
        return self._free_at - now - self._burst / self._qps
