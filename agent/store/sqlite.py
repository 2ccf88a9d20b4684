"""The record in one SQLite file: WAL, one writer thread, full sync, a checksum on every row.

Writes that arrive while a commit is under way join the next one, so a burst of pods costs few fsyncs. What happens to a
broken file is in `sqlite_file`; `rebuilt` counts it, for whoever still has the rows that were lost.
"""

from __future__ import annotations

import asyncio
import builtins
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack

import msgspec
from loguru import logger

from agent.errors import Retryable
from agent.store import schema
from agent.store.base import Change, Delete, Put, Row
from agent.store.sqlite_file import RecordFile
from agent.store.watchers import Watchers

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Pending(msgspec.Struct):
    changes: Sequence[Put | Delete]
    done: asyncio.Future[int]


class SqliteStore:
    """A Store in a file. Open it with `SqliteStore.open`; all methods belong to one event loop."""

    def __init__(self, path: Path, *, outbox: bool = False) -> None:
        self.path = path
        self._file = RecordFile(path, outbox=outbox)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="record")
        self._pending: list[_Pending] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._watchers = Watchers()
        self._closed = False

    @classmethod
    async def open(cls, path: Path, *, outbox: bool = False, wait_s: float = 10.0) -> SqliteStore:
        """Open or make the record; `outbox`: keep what a remote store must still be told.

        Raises ConfigError where the folder cannot be written; Retryable where the disk is full or read-only; Permanent
        where another process still has the record after `wait_s`.
        """
        store = cls(path, outbox=outbox)
        try:
            await store._run(store._file.open, wait_s)
        except BaseException:
            store._thread.shutdown(wait=False)
            raise
        return store

    async def get(self, key: str) -> Row | None:
        rows = await self._read(self._file.get, key)
        return rows[0] if rows else None

    async def list(self, prefix: str) -> tuple[Row, ...]:
        return await self._read(self._file.list, prefix)

    async def put(self, key: str, value: bytes) -> int:
        return await self.batch((Put(key, value),))

    async def delete(self, key: str) -> int:
        return await self.batch((Delete(key),))

    async def batch(self, changes: Sequence[Put | Delete]) -> int:
        if self._closed:
            raise Retryable("the record is closed")
        waiting = _Pending(changes, asyncio.get_running_loop().create_future())
        self._pending.append(waiting)
        if self._idle.is_set():
            self._commit_pending()
        return await waiting.done

    def watch(self, prefix: str) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        return self._watchers.watch(prefix)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._idle.wait()
        await self._run(self._file.close)
        self._thread.shutdown(wait=False)
        self._watchers.close()

    # ------------------------------------------------------------ upkeep

    @property
    def rebuilt(self) -> int:
        """How often the file was made anew since it was opened."""
        return self._file.rebuilt

    @property
    def size_bytes(self) -> int:
        return self._file.size_bytes

    async def verify(self) -> tuple[str, ...]:
        """Read all of the file and mend what is broken; what was wrong."""
        return await self._guard(self._file.verify)

    async def compact(self) -> None:
        await self._guard(lambda: self._file.guarded(self._file.compact))

    async def scrub(self) -> None:
        """Leave nothing of what was overwritten or deleted, in the file or in its log."""
        await self._guard(lambda: self._file.guarded(self._file.scrub))

    async def revision(self) -> int:
        return await self._guard(lambda: self._file.revision)

    # ------------------------------------------------------------ for a remote store

    async def incarnation(self) -> str:
        """Which file this is: another one in its place has another."""
        return await self._guard(lambda: self._file.fact(schema.INCARNATION))

    async def acknowledged(self) -> int:
        """The newest revision that the remote store took."""
        return int(await self._guard(lambda: self._file.fact(schema.ACKNOWLEDGED)) or 0)

    async def unsent(self, limit: int) -> tuple[Change, ...]:
        return await self._guard(lambda: self._file.unsent(limit))

    async def count_unsent(self) -> int:
        return await self._guard(self._file.count_unsent)

    async def sent(self, changes: Iterable[Change]) -> None:
        await self._guard(lambda: self._file.guarded(lambda: self._file.sent(changes)))

    async def take_over(self, rows: Iterable[Row], send: Iterable[str], at_least: int) -> None:
        """Rows of the remote store become ours, the keys `send` go to it; our revisions go on above `at_least`."""
        rows, send = tuple(rows), tuple(send)
        await self._guard(lambda: self._file.guarded(lambda: self._file.take_over(rows, send, at_least)))
        for row in rows:
            self._watchers.tell((Put(row.key, row.value),), row.revision)

    # ------------------------------------------------------------ on the loop

    def _commit_pending(self) -> None:
        group, self._pending = self._pending, []
        self._idle.clear()
        commit = self._run(self._file.commit, [waiting.changes for waiting in group])
        commit.add_done_callback(lambda finished: self._committed(group, finished))

    def _committed(self, group: builtins.list[_Pending], finished: asyncio.Future[builtins.list[int]]) -> None:
        error = finished.exception()
        if error is not None:
            for waiting in group:
                if not waiting.done.done():
                    failure = Retryable(f"cannot write the record {self.path}: {error}")
                    failure.__cause__ = error
                    waiting.done.set_exception(failure)
        else:
            for waiting, revision in zip(group, finished.result(), strict=True):
                if not waiting.done.done():
                    waiting.done.set_result(revision)
                self._watchers.tell(waiting.changes, revision)
        if self._pending:
            self._commit_pending()
        else:
            self._idle.set()

    async def _read(
        self, read: Callable[[str], tuple[tuple[Row, ...], builtins.list[str]]], argument: str
    ) -> tuple[Row, ...]:
        found, bad = await self._guard(lambda: read(argument))
        for key in bad:
            logger.error("record {}: row {} is corrupt and was dropped", self.path, key)
        return found

    async def _guard(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise Retryable("the record is closed")
        try:
            return await self._run(work)
        except (sqlite3.Error, OSError) as error:
            raise Retryable(f"cannot use the record {self.path}: {error}") from error

    def _run(self, work: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
