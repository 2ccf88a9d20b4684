"""The record in one SQLite file: WAL, one writer thread, full sync, a checksum on every row.

Writes that arrive while a commit is under way join the next one, so a burst of pods costs few fsyncs. A row whose
checksum does not hold is dropped, a file that SQLite cannot read is set aside, both with a message and neither a
reason not to start: what was lost comes back from the runtime and the API server.
"""

from __future__ import annotations

import asyncio
import builtins
import sqlite3
import time
import zlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from agent.errors import ConfigError, Retryable
from agent.store.base import Change, Delete, Put, Row

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, checksum INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL);
INSERT OR IGNORE INTO counter VALUES (1, 0);
"""


@dataclass(slots=True)
class _Pending:
    changes: Sequence[Put | Delete]
    done: asyncio.Future[int]


class SqliteStore:
    """A Store in a file. Open it with `SqliteStore.open`; all methods belong to one event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="record")
        self._pending: list[_Pending] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._watchers: list[tuple[str, asyncio.Queue[Change | None]]] = []
        self._closed = False
        self._db: sqlite3.Connection

    @classmethod
    async def open(cls, path: Path) -> SqliteStore:
        """Open or make the record. Raises ConfigError where the folder cannot be written."""
        store = cls(path)
        await asyncio.get_running_loop().run_in_executor(store._thread, store._open)
        return store

    async def get(self, key: str) -> Row | None:
        rows = await self._read("SELECT key, value, revision, checksum FROM rows WHERE key = ?", (key,))
        return rows[0] if rows else None

    async def list(self, prefix: str) -> tuple[Row, ...]:
        # "\U0010ffff" sorts after every key character in use.
        return await self._read(
            "SELECT key, value, revision, checksum FROM rows WHERE key >= ? AND key < ? ORDER BY key",
            (prefix, prefix + "\U0010ffff"),
        )

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

    async def watch(self, prefix: str) -> AsyncIterator[Change]:
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        entry = (prefix, queue)
        self._watchers.append(entry)
        try:
            while (change := await queue.get()) is not None:
                yield change
        finally:
            self._watchers.remove(entry)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._idle.wait()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
        self._thread.shutdown(wait=False)
        for _, queue in self._watchers:
            queue.put_nowait(None)

    # ------------------------------------------------------------ on the loop

    def _commit_pending(self) -> None:
        group, self._pending = self._pending, []
        self._idle.clear()
        commit = asyncio.get_running_loop().run_in_executor(self._thread, self._commit, [w.changes for w in group])
        commit.add_done_callback(lambda finished: self._committed(group, finished))

    def _committed(self, group: builtins.list[_Pending], finished: asyncio.Future[builtins.list[int]]) -> None:
        error = finished.exception()
        if error is not None:
            for waiting in group:
                if not waiting.done.done():
                    failure = Retryable(f"cannot write the record {self._path}: {error}")
                    failure.__cause__ = error
                    waiting.done.set_exception(failure)
        else:
            for waiting, revision in zip(group, finished.result(), strict=True):
                if not waiting.done.done():
                    waiting.done.set_result(revision)
                self._notify(waiting.changes, revision)
        if self._pending:
            self._commit_pending()
        else:
            self._idle.set()

    def _notify(self, changes: Sequence[Put | Delete], revision: int) -> None:
        for change in changes:
            value = change.value if isinstance(change, Put) else None
            for prefix, queue in self._watchers:
                if change.key.startswith(prefix):
                    queue.put_nowait(Change(change.key, value, revision))

    async def _read(self, sql: str, arguments: tuple[str, ...]) -> tuple[Row, ...]:
        try:
            found, bad = await asyncio.get_running_loop().run_in_executor(self._thread, self._select, sql, arguments)
        except sqlite3.Error as error:
            raise Retryable(f"cannot read the record {self._path}: {error}") from error
        for key in bad:
            logger.error("record {}: row {} is corrupt and was dropped", self._path, key)
        return found

    # ------------------------------------------------------------ on the writer's thread

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.touch(mode=0o600)
        except OSError as error:
            raise ConfigError(f"root-dir: cannot write {self._path}: {error.strerror}") from error
        try:
            self._db = self._connect()
        except sqlite3.DatabaseError as error:
            aside = self._path.with_name(f"{self._path.name}.corrupt-{int(time.time())}")
            logger.error("record {} cannot be read ({}): set aside as {}, starting anew", self._path, error, aside)
            self._path.rename(aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._path.touch(mode=0o600)
            self._db = self._connect()

    def _connect(self) -> sqlite3.Connection:
        # The default connection cache is 2 MiB; a node's record is small and the page cache holds it anyway.
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-512;")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise ConfigError(
                    f"root-dir: {self._path} was written by a newer edgelet (schema {version} > {SCHEMA_VERSION})"
                )
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            db.executescript(f"{_SCHEMA} PRAGMA user_version={SCHEMA_VERSION};")
        except BaseException:
            db.close()
            raise
        return db

    def _commit(self, groups: builtins.list[Sequence[Put | Delete]]) -> builtins.list[int]:
        revisions: builtins.list[int] = []
        self._db.execute("BEGIN IMMEDIATE")
        try:
            (revision,) = self._db.execute("SELECT revision FROM counter").fetchone()
            for changes in groups:
                revision += 1
                for change in changes:
                    if isinstance(change, Put):
                        self._db.execute(
                            "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)",
                            (change.key, change.value, revision, _checksum(change.key, change.value)),
                        )
                    else:
                        self._db.execute("DELETE FROM rows WHERE key = ?", (change.key,))
                revisions.append(revision)
            self._db.execute("UPDATE counter SET revision = ?", (revision,))
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return revisions

    def _select(self, sql: str, arguments: tuple[str, ...]) -> tuple[tuple[Row, ...], builtins.list[str]]:
        found: builtins.list[Row] = []
        bad: builtins.list[str] = []
        for key, value, revision, checksum in self._db.execute(sql, arguments):
            if _checksum(key, value) == checksum:
                found.append(Row(key, value, revision))
            else:
                bad.append(key)
        for key in bad:
            self._db.execute("DELETE FROM rows WHERE key = ?", (key,))
        return tuple(found), bad


def _checksum(key: str, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key.encode()))
