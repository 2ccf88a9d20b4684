"""A clock that stands still until the test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class FakeClock:
    """Sleepers wake, in the order of their deadlines, only while `advance` runs."""

    def __init__(self, wall: float = 1_700_000_000.0) -> None:
        self._now = 1000.0
        self._wall_offset = wall - self._now
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    def monotonic(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + self._wall_offset

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._count), woken))
        await woken

    @property
    def sleepers(self) -> int:
        """How many wait for time to pass."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Let that much time pass, and everything that it wakes run until it waits again."""
        end = self._now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, woken = heapq.heappop(self._sleepers)
            self._now = max(self._now, due)
            if not woken.done():
                woken.set_result(None)
            await settle()
        self._now = end
        await settle()


async def settle(rounds: int = 50) -> None:
    """Let every ready task run."""
    for _ in range(rounds):
        await asyncio.sleep(0)
