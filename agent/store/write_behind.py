"""A record on a server, ridden out by a local one: each write goes to the local SQLite file first, then to the server.

Reads are the local file's. What the server has not taken stays in the file's outbox, in order, each key with its newest
value, and goes to it when it answers; nobody waits for that. At the first contact and after each break the two are
compared by what the server says of itself: which file it was filled from, and up to which revision.

- The same file, the same revision: only the outbox is sent.
- The same file, another revision: the server lost something (a backup, an unsynced log). The local file wins.
- Another file (this disk is new, or the server's data are): row by row. What this node wrote and has not sent wins; of
  other rows the greater revision does; a row that only one side has is kept. A deletion that only the lost side knew is
  undone so; the API server's list corrects that.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import msgspec
from loguru import logger

from agent.clock import Clock
from agent.errors import Permanent, Retryable
from agent.store.base import BATCH_LIMIT, Change, Delete, Put, Row
from agent.store.claim import LIFE_S, Claim, Word
from agent.store.remote import Remote
from agent.store.sqlite import SqliteStore

FILLED_FROM = ".filled-from"
"""The server's row that says which local file it was filled from."""
BATCH_BYTES = 1_000_000
"""etcd takes requests of 1.5 MiB."""
RETRY_FIRST_S, RETRY_MOST_S = 0.5, 10.0
FIRST_CONTACT_S = 5.0
"""How long a start with an empty local file waits for the server's rows."""


class FilledFrom(msgspec.Struct, frozen=True):
    incarnation: str = ""
    revision: int = 0


class WriteBehind:
    """Fits `Store`. One owner calls `run`."""

    def __init__(self, local: SqliteStore, remote: Remote, name: str, clock: Clock) -> None:
        """`name` is the server, as it may be shown."""
        self._local = local
        self._remote = remote
        self._name = name
        self._clock = clock
        self._news = asyncio.Event()
        self._compared = False
        self._away = ""
        self._claim = Claim(remote, local.incarnation, clock)
        self._taken: Callable[[], None] = lambda: None

    def notify(self, taken: Callable[[], None]) -> None:
        """`taken` is told when rows came from the server."""
        self._taken = taken

    async def start(self) -> None:
        """An empty local file is filled from the server, where that answers soon. Raises Permanent where another
        agent of this name has the rows there."""
        if await self._local.list(""):
            return
        try:
            async with asyncio.timeout(FIRST_CONTACT_S):
                await self.synchronize()
        except (Retryable, TimeoutError) as error:
            logger.warning(
                "the local record is empty and {} gave nothing to start from: {}", self._name, error or "no answer"
            )

    async def run(self) -> None:
        """Raises Permanent where another agent of this name had the rows before this one."""
        pause = RETRY_FIRST_S
        while True:
            try:
                await self.synchronize()
            except (Retryable, Permanent) as error:
                if isinstance(error, Permanent) and not self._claim.was_held:
                    raise
                # Who had the rows first and lost them during an outage goes on: its pods are not to suffer for it.
                if not self._away or (isinstance(error, Permanent) and self._away != str(error)):
                    logger.warning("{}; the local record goes on alone", error)
                self._away, self._compared = str(error), False
                self._claim.doubt()
                await self._clock.sleep(pause)
                pause = min(pause * 2, RETRY_MOST_S)
                continue
            if self._away:
                logger.info("{} answers again and has everything", self._name)
            self._away, pause = "", RETRY_FIRST_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LIFE_S / 3):
                    await self._news.wait()

    async def synchronize(self) -> None:
        """Make the server have everything. Raises Retryable, and Permanent where another agent has the rows there."""
        if (other := await self._claim.hold()) is not None:
            raise Permanent("RecordInUse", _in_use(self._name, other))
        if not self._compared:
            await self._compare()
            self._compared = True
        self._news.clear()
        await self._drain()

    async def get(self, key: str) -> Row | None:
        return await self._local.get(key)

    async def list(self, prefix: str) -> tuple[Row, ...]:
        return await self._local.list(prefix)

    async def put(self, key: str, value: bytes) -> int:
        return await self.batch((Put(key, value),))

    async def delete(self, key: str) -> int:
        return await self.batch((Delete(key),))

    async def batch(self, changes: Sequence[Put | Delete]) -> int:
        revision = await self._local.batch(changes)
        self._news.set()
        return revision

    def watch(self, prefix: str) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        return self._local.watch(prefix)

    async def close(self) -> None:
        await self._remote.close()
        await self._local.close()

    # ------------------------------------------------------------ the server

    async def _drain(self) -> None:
        limit = BATCH_LIMIT - 1
        while changes := _within(await self._local.unsent(limit), BATCH_BYTES):
            mark = Put(FILLED_FROM, await self._mark(changes[-1].revision))
            try:
                await self._remote.batch([*map(_as_write, changes), mark])
            except Permanent as error:
                if len(changes) > 1:
                    limit = 1  # one by one, until it is the one that is refused
                    continue
                logger.error("{} does not take the row {}: {}", self._name, changes[0].key, error)
            limit = BATCH_LIMIT - 1
            await self._local.sent(changes)

    async def _mark(self, revision: int) -> bytes:
        return json.dumps({"incarnation": await self._local.incarnation(), "revision": revision}).encode()

    async def _compare(self) -> None:
        row = await self._remote.get(FILLED_FROM)
        filled = FilledFrom()
        if row is not None:
            with contextlib.suppress(msgspec.DecodeError):
                filled = msgspec.json.decode(row.value, type=FilledFrom)
        if filled.incarnation == await self._local.incarnation():
            if filled.revision != await self._local.acknowledged():
                logger.warning("{} lacks something that it had taken: it gets the whole record", self._name)
                await self._send_everything()
            return
        await self._merge(filled)

    async def _theirs(self) -> dict[str, Row]:
        return {row.key: row for row in await self._remote.list("") if row.key != FILLED_FROM}

    async def _send_everything(self) -> None:
        theirs, ours = await self._theirs(), {row.key: row for row in await self._local.list("")}
        different = [key for key, row in ours.items() if key not in theirs or theirs[key].value != row.value]
        await self._local.take_over((), [*different, *(theirs.keys() - ours.keys())], 0)

    async def _merge(self, filled: FilledFrom) -> None:
        """`filled.revision` is in the counting of the file that the server was filled from, as its rows' are not."""
        theirs, ours = await self._theirs(), {row.key: row for row in await self._local.list("")}
        unsent = {change.key for change in await self._local.unsent(1_000_000)}
        local_revision = await self._local.revision()
        take: builtins.list[Row] = []
        send: set[str] = set(unsent)
        server_is_newer = filled.revision > local_revision
        revision = max(local_revision, filled.revision)
        for key in theirs.keys() | ours.keys():
            if key in unsent:
                continue
            if key not in ours or (key in theirs and server_is_newer):
                take.append(Row(key, theirs[key].value, revision))
            elif key not in theirs or theirs[key].value != ours[key].value:
                send.add(key)
        await self._local.take_over(take, send, revision)
        if take:
            logger.info("{} rows of the record came from {}", len(take), self._name)
            self._taken()


def _in_use(name: str, other: Word) -> str:
    since = datetime.fromtimestamp(other.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    who = f"on host {other.host}, edgelet {other.version}, since {since}"
    return (
        f"{name}: another agent of this node's name lives and has the record there ({who}): stop it, or give this one"
        f" another --nodename; the word of one that died ends after {LIFE_S} s"
    )


def _as_write(change: Change) -> Put | Delete:
    return Delete(change.key) if change.value is None else Put(change.key, change.value)


def _within(changes: Sequence[Change], limit: int) -> Sequence[Change]:
    """As many of the first as fit, at least one."""
    size = 0
    for number, change in enumerate(changes):
        size += len(change.key) + len(change.value or b"")
        if size > limit and number:
            return changes[:number]
    return changes
