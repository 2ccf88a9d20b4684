"""Who watches a record inside this process: each has a queue, and hears of the changes below its prefix."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from agent.store.base import Change, Delete, Put


class Watchers:
    def __init__(self) -> None:
        self._queues: list[tuple[str, asyncio.Queue[Change | None]]] = []

    @asynccontextmanager
    async def watch(self, prefix: str) -> AsyncIterator[AsyncIterator[Change]]:
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        entry = (prefix, queue)
        self._queues.append(entry)
        try:
            yield _until_closed(queue)
        finally:
            self._queues.remove(entry)

    def tell(self, changes: Sequence[Put | Delete], revision: int) -> None:
        for change in changes:
            value = change.value if isinstance(change, Put) else None
            for prefix, queue in self._queues:
                if change.key.startswith(prefix):
                    queue.put_nowait(Change(change.key, value, revision))

    def close(self) -> None:
        for _, queue in self._queues:
            queue.put_nowait(None)


async def _until_closed(queue: asyncio.Queue[Change | None]) -> AsyncIterator[Change]:
    while (change := await queue.get()) is not None:
        yield change
