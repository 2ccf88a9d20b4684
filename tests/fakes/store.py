"""The record in memory. It counts writes, and keeps nothing."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from agent.store.base import Change, Delete, Put, Row
from agent.store.watchers import Watchers


class MemoryStore:
    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.writes: builtins.list[Put | Delete] = []
        self._revision = 0
        self._watchers = Watchers()

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
        self._watchers.tell(changes, self._revision)
        return self._revision

    def watch(self, prefix: str) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        return self._watchers.watch(prefix)

    async def close(self) -> None:
        self._watchers.close()
