"""The record in memory. It counts writes, and keeps nothing."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Sequence

from agent.store.base import Change, Delete, Put, Row


class MemoryStore:
    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.writes: builtins.list[Put | Delete] = []
        self._revision = 0
        self._watchers: builtins.list[tuple[str, asyncio.Queue[Change | None]]] = []

    async def get(self, key: str) -> Row | None:
        await asyncio.sleep(0)
        return self.rows.get(key)

    async def list(self, prefix: str) -> tuple[Row, ...]:
        await asyncio.sleep(0)
        return tuple(row for key, row in sorted(self.rows.items()) if key.startswith(prefix))

    async def put(self, key: str, value: bytes) -> int:
        return await self.batch((Put(key, value),))

    async def delete(self, key: str) -> int:
        return await self.batch((Delete(key),))

    async def batch(self, changes: Sequence[Put | Delete]) -> int:
        await asyncio.sleep(0)
        self._revision += 1
        for change in changes:
            self.writes.append(change)
            value = change.value if isinstance(change, Put) else None
            if value is None:
                self.rows.pop(change.key, None)
            else:
                self.rows[change.key] = Row(change.key, value, self._revision)
            for prefix, queue in self._watchers:
                if change.key.startswith(prefix):
                    queue.put_nowait(Change(change.key, value, self._revision))
        return self._revision

    async def watch(self, prefix: str) -> AsyncIterator[Change]:
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._watchers.append((prefix, queue))
        while (change := await queue.get()) is not None:
            yield change

    async def close(self) -> None:
        for _, queue in self._watchers:
            queue.put_nowait(None)
