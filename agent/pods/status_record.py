"""Keep the last status of every pod in the record, so that a restarted agent goes on where it was.

In: statuses as they are reported. Out: rows below `status/`, written together a moment later: a status is worth less
than a desired pod, and its loss is repaired by looking at the runtime.
"""

from __future__ import annotations

import asyncio

import msgspec
from loguru import logger

from agent.errors import Retryable
from agent.model.status import PodStatus
from agent.store.base import Delete, Put, Store
from agent.store.rows import read_rows

PREFIX = "status/"
GATHER_S = 0.5


class StatusRecord:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: dict[str, PodStatus | None] = {}
        self._news = asyncio.Event()

    async def load(self) -> dict[str, PodStatus]:
        """By UID, as it was when the agent last ran."""
        return await read_rows(self._store, PREFIX, PodStatus, "status")

    def put(self, uid: str, status: PodStatus) -> None:
        self._pending[uid] = status
        self._news.set()

    def forget(self, uid: str) -> None:
        self._pending[uid] = None
        self._news.set()

    async def run(self) -> None:
        """Write what gathers, for as long as the agent lives, and the rest at its end."""
        try:
            while True:
                await self._news.wait()
                await asyncio.sleep(GATHER_S)
                await self._flush()
        finally:
            await asyncio.shield(self._flush())

    async def _flush(self) -> None:
        self._news.clear()
        pending, self._pending = self._pending, {}
        if not pending:
            return
        writes: list[Put | Delete] = []
        for uid, status in pending.items():
            writes.append(Delete(PREFIX + uid) if status is None else Put(PREFIX + uid, msgspec.json.encode(status)))
        try:
            await self._store.batch(writes)
        except Retryable as error:
            logger.error("statuses are not recorded yet: {}", error)
            # With the next that comes: what has ended must stay ended after a restart.
            self._pending = pending | self._pending
