"""A record whose Secrets and tokens are sealed on the disk and on the wire; above it they are plain.

Rows that can't be opened (the key was lost, or the row was changed) are set aside below `unreadable/` with a message,
and count as missing: the API server has them. When the key comes back, so do they. Plain rows of older versions are
sealed at the start, and what the file still has of them is overwritten.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from loguru import logger

from agent.store.base import BATCH_LIMIT, Change, Delete, Put, Row, Store
from agent.store.seal import Sealer, Unreadable, is_sealed

SEALED = ("objects/secrets/", "tokens/", "answers/", "answers-callers")
ASIDE = "unreadable/"


class SealedStore:
    """Open it with `SealedStore.open`. Fits `Store`."""

    def __init__(self, inner: Store, sealer: Sealer) -> None:
        self._inner = inner
        self._sealer = sealer
        self._loading = asyncio.Lock()

    @classmethod
    async def open(
        cls, inner: Store, sealer: Sealer, scrub: Callable[[], Awaitable[None]] | None = None
    ) -> SealedStore:
        """`scrub` overwrites what the backend still has of rows that were plain. Raises ConfigError, Retryable."""
        await asyncio.to_thread(sealer.check)
        store = cls(inner, sealer)
        await store._restore()
        if await store._seal_plain_rows() and scrub is not None:
            await scrub()
        return store

    async def get(self, key: str) -> Row | None:
        row = await self._inner.get(key)
        found = await self._opened((row,)) if row is not None else ()
        return found[0] if found else None

    async def list(self, prefix: str) -> tuple[Row, ...]:
        return await self._opened(await self._inner.list(prefix))

    async def put(self, key: str, value: bytes) -> int:
        return await self.batch((Put(key, value),))

    async def delete(self, key: str) -> int:
        return await self.batch((Delete(key),))

    async def batch(self, changes: Sequence[Put | Delete]) -> int:
        secret = any(isinstance(change, Put) and must_be_sealed(change.key) for change in changes)
        if not self._sealer.loaded and (secret or self._loading.locked()):
            # Everybody waits meanwhile: writes must not overtake each other.
            async with self._loading:
                await asyncio.to_thread(self._sealer.load)
        return await self._inner.batch(self._sealed(changes) if secret else changes)

    @asynccontextmanager
    async def watch(self, prefix: str) -> AsyncIterator[AsyncIterator[Change]]:
        async with self._inner.watch(prefix) as changes:
            yield self._plain(changes)

    async def close(self) -> None:
        await self._inner.close()

    async def _plain(self, changes: AsyncIterator[Change]) -> AsyncIterator[Change]:
        async for change in changes:
            if change.value is None:
                yield change
                continue
            for row in await self._opened((Row(change.key, change.value, change.revision),)):
                yield Change(row.key, row.value, row.revision)

    def _sealed(self, changes: Sequence[Put | Delete]) -> Sequence[Put | Delete]:
        return [
            Put(change.key, self._sealer.seal(change.key, change.value))
            if isinstance(change, Put) and must_be_sealed(change.key)
            else change
            for change in changes
        ]

    async def _opened(self, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        if not any(must_be_sealed(row.key) and is_sealed(row.value) for row in rows):
            return rows
        found, lost = await asyncio.to_thread(self._unsealed, rows)
        if lost:
            await self._set_aside(lost)
        return found

    def _unsealed(self, rows: tuple[Row, ...]) -> tuple[tuple[Row, ...], tuple[tuple[Row, str], ...]]:
        found: list[Row] = []
        lost: list[tuple[Row, str]] = []
        for row in rows:
            if not (must_be_sealed(row.key) and is_sealed(row.value)):
                found.append(row)
                continue
            try:
                found.append(Row(row.key, self._sealer.unseal(row.key, row.value), row.revision))
            except Unreadable as error:
                lost.append((row, str(error)))
        return tuple(found), tuple(lost)

    async def _set_aside(self, lost: tuple[tuple[Row, str], ...]) -> None:
        for row, why in lost:
            logger.error(
                "record row {} cannot be read with the key {} ({}): set aside, to be had from the API server again",
                row.key,
                self._sealer.where,
                why,
            )
        moves: list[Put | Delete] = []
        for row, _ in lost:
            moves += [Put(ASIDE + row.key, row.value), Delete(row.key)]
        for start in range(0, len(moves), BATCH_LIMIT):
            await self._inner.batch(moves[start : start + BATCH_LIMIT])

    async def _restore(self) -> None:
        """Rows that were set aside and can be read now come back, where nothing newer has their place."""
        for row in await self._inner.list(ASIDE):
            key = row.key.removeprefix(ASIDE)
            try:
                await asyncio.to_thread(self._sealer.unseal, key, row.value)
            except Unreadable:
                continue
            newer = await self._inner.get(key) is not None
            await self._inner.batch([Delete(row.key)] if newer else [Put(key, row.value), Delete(row.key)])

    async def _seal_plain_rows(self) -> bool:
        rows = [row for prefix in SEALED for row in await self._inner.list(prefix) if not is_sealed(row.value)]
        for start in range(0, len(rows), BATCH_LIMIT):
            await self.batch([Put(row.key, row.value) for row in rows[start : start + BATCH_LIMIT]])
        if rows:
            logger.info(
                "{} Secrets and tokens in the record were sealed with the key {}", len(rows), self._sealer.where
            )
        return bool(rows)


def must_be_sealed(key: str) -> bool:
    return key.startswith(SEALED)
