"""The record in memory before the record on the disk: what the agent can't do without is served from here.

In: the backend and how to open it. Out: a Store whose reads never fail for a disk's sake, and whose writes don't
either: what the disk refuses (full, read-only, broken) is kept here and written once it takes writes again; `trouble`
says so meanwhile. A file that had to be made anew is filled again. Rows of `NOT_HELD` go to the backend, with its
failures.
The values are mostly those that the owners of the rows hold anyway, so they cost little.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from loguru import logger

from agent.clock import Clock
from agent.errors import Retryable
from agent.store.base import BATCH_LIMIT, Change, Delete, Put, Row, Store, last_of_each
from agent.store.sealed import ASIDE
from agent.store.watchers import Watchers

NOT_HELD = ("cache/", "journal/", ASIDE)
"""Rows that may be many or large, and that the agent can do without for a while."""
RETRY_FIRST_S, RETRY_MOST_S = 0.5, 10.0
COMPACT_EVERY_S = 60.0
VERIFY_EVERY_S = 600.0


class Disk(Protocol):
    """The file below the backend."""

    @property
    def rebuilt(self) -> int: ...
    async def verify(self) -> tuple[str, ...]: ...
    async def compact(self) -> None: ...


class Backend:
    """An opened backend: the store, the file that it lies in, and what must run beside it."""

    def __init__(self, store: Store, disk: Disk, run: Callable[[], Awaitable[None]] | None = None) -> None:
        self.store = store
        self.disk = disk
        self.run = run
        self.rebuilt = disk.rebuilt


class HeldStore:
    """Fits `Store`. One owner calls `run`; open it with `HeldStore.open`."""

    def __init__(self, connect: Callable[[], Awaitable[Backend]], clock: Clock) -> None:
        self._connect = connect
        self._clock = clock
        self._backend: Backend | None = None
        self._rows: dict[str, Row] = {}
        self._unsaved: dict[str, Put | Delete] = {}
        self._revision = 0
        self._incomplete = False
        self._watchers = Watchers()
        self._writing = asyncio.Lock()
        self._troubled = asyncio.Event()
        self._changed: Callable[[], None] = lambda: None
        self.trouble = ""
        """Why the disk does not take what is written; empty while it does."""

    @classmethod
    async def open(
        cls, connect: Callable[[], Awaitable[Backend]], readable: Callable[[], Awaitable[Iterable[Row]]], clock: Clock
    ) -> HeldStore:
        """`readable` is what can be read where the record can't be opened for writing. Raises ConfigError."""
        held = cls(connect, clock)
        try:
            held._backend = await connect()
            rows: Iterable[Row] = await held._backend.store.list("")
        except Retryable as error:
            rows = await readable()
            held._fail(error)
        for row in rows:
            if is_held(row.key):
                held._rows[row.key] = row
            held._revision = max(held._revision, row.revision)
        return held

    def notify(self, changed: Callable[[], None]) -> None:
        """`changed` is called when `trouble` begins or ends."""
        self._changed = changed

    @property
    def unsaved(self) -> int:
        """Rows that the disk has not taken yet."""
        return len(self._unsaved)

    def reload(self) -> None:
        """Rows came from elsewhere into the backend: those that are not held yet are to be held."""
        self._incomplete = True
        self._troubled.set()

    async def get(self, key: str) -> Row | None:
        return self._rows.get(key) if is_held(key) else await self._open().get(key)

    async def list(self, prefix: str) -> tuple[Row, ...]:
        if is_held(prefix) and not any(other.startswith(prefix) for other in NOT_HELD):
            return tuple(row for key, row in sorted(self._rows.items()) if key.startswith(prefix))
        others = [row for row in await self._open().list(prefix) if not is_held(row.key)]
        held = [row for key, row in self._rows.items() if key.startswith(prefix)]
        return tuple(sorted((*others, *held), key=lambda row: row.key))

    async def put(self, key: str, value: bytes) -> int:
        return await self.batch((Put(key, value),))

    async def delete(self, key: str) -> int:
        return await self.batch((Delete(key),))

    async def batch(self, changes: Sequence[Put | Delete]) -> int:
        if not any(is_held(change.key) for change in changes):
            revision = await self._open().batch(changes)
        else:
            revision = await self._write(changes)
        self._revision = max(self._revision + 1, revision)
        self._take(changes, self._revision)
        self._watchers.tell(changes, self._revision)
        self._look_for_a_new_file()
        return self._revision

    def watch(self, prefix: str) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        return self._watchers.watch(prefix)

    async def close(self) -> None:
        """Write what is left, where the disk takes it."""
        if self._unsaved:
            try:
                await self._catch_up()
            except Retryable as error:
                logger.error("{} changes of the record are lost: {}", len(self._unsaved), error)
        if self._backend is not None:
            await self._backend.store.close()
        self._watchers.close()

    async def run(self) -> None:
        """Look after the backend for as long as the agent lives."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._mend(tasks), name="record-mend")
            tasks.create_task(self._keep_up(), name="record-upkeep")
            if self._backend is not None and self._backend.run is not None:
                tasks.create_task(_run(self._backend.run), name="record-remote")

    # ------------------------------------------------------------ writing

    def _open(self) -> Store:
        if self._backend is None:
            raise Retryable(self.trouble or "the record is not open")
        return self._backend.store

    async def _write(self, changes: Sequence[Put | Delete]) -> int:
        """To the disk, or where it does not take them into the memory that waits for it."""
        if not self._unsaved and self._backend is not None:
            try:
                revision = await self._backend.store.batch(changes)
            except Retryable as error:
                self._fail(error)
            else:
                # Of writes that were on their way together an earlier one may have been refused: it is out of date.
                for change in changes:
                    self._unsaved.pop(change.key, None)
                return revision
        # In order: whatever comes after what was refused waits behind it.
        for key, change in last_of_each(changes).items():
            self._unsaved.pop(key, None)
            self._unsaved[key] = change
        return 0

    def _take(self, changes: Sequence[Put | Delete], revision: int) -> None:
        for change in changes:
            if not is_held(change.key):
                continue
            if isinstance(change, Put):
                self._rows[change.key] = Row(change.key, change.value, revision)
            else:
                self._rows.pop(change.key, None)

    # ------------------------------------------------------------ trouble

    def _fail(self, error: Exception) -> None:
        if str(error) != self.trouble:
            logger.error("{}; the agent goes on from memory until it can be written again", error)
        begins = not self.trouble
        self.trouble = str(error)
        self._troubled.set()
        if begins:
            self._changed()

    async def _mend(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self._troubled.wait()
            self._troubled.clear()
            pause = RETRY_FIRST_S
            while self.trouble or self._unsaved or self._incomplete:
                await self._clock.sleep(pause)
                pause = min(pause * 2, RETRY_MOST_S)
                try:
                    if self._backend is None:
                        self._backend = await self._connect()
                        if self._backend.run is not None:
                            tasks.create_task(_run(self._backend.run), name="record-remote")
                        self._refill()
                    await self._catch_up()
                    await self._complete()
                except Retryable as error:
                    self._fail(error)

    async def _complete(self) -> None:
        if self._incomplete:
            self._incomplete = False
            for row in await self._open().list(""):
                if is_held(row.key):
                    self._rows.setdefault(row.key, row)

    async def _catch_up(self) -> None:
        """Write what waits, in order, and what comes meanwhile."""
        async with self._writing:
            while self._unsaved:
                part = dict(list(self._unsaved.items())[:BATCH_LIMIT])
                await self._open().batch(list(part.values()))
                for key, change in part.items():
                    if self._unsaved.get(key) is change:
                        del self._unsaved[key]
        if self.trouble:
            logger.info("the record can be written again, and has everything")
            self.trouble = ""
            self._changed()

    def _look_for_a_new_file(self) -> None:
        backend = self._backend
        if backend is not None and backend.disk.rebuilt != backend.rebuilt:
            backend.rebuilt = backend.disk.rebuilt
            self._refill()

    def _refill(self) -> None:
        """The file may lack anything: write all that is held."""
        for key, row in self._rows.items():
            self._unsaved.setdefault(key, Put(key, row.value))
        self._troubled.set()

    async def _keep_up(self) -> None:
        """Give space back, and find a broken file before a start does."""
        since_verified = 0.0
        while True:
            await self._clock.sleep(COMPACT_EVERY_S)
            since_verified += COMPACT_EVERY_S
            if self._backend is None:
                continue
            try:
                await self._backend.disk.compact()
                if since_verified >= VERIFY_EVERY_S:
                    since_verified = 0.0
                    for problem in await self._backend.disk.verify():
                        logger.error("record: {}", problem)
                        self._refill()
            except Retryable as error:
                logger.error("the record's upkeep failed: {}", error)
            self._look_for_a_new_file()


async def _run(what: Callable[[], Awaitable[None]]) -> None:
    await what()


def is_held(key: str) -> bool:
    return not key.startswith(NOT_HELD)
