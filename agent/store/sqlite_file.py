"""The SQLite record's file: opened, checked, written, salvaged. Blocking; everything happens on one thread.

A row whose checksum does not hold is dropped. A file that SQLite cannot read, at the start or later, is set aside and
what can still be read of it moves into a new one; both with a message and neither a reason to stop. A file that was
removed under our hands is made again.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from loguru import logger

from agent.errors import ConfigError, Permanent, Retryable
from agent.store import schema
from agent.store.base import Change, Delete, Put, Row

KEPT_ASIDE = 2
"""Broken files that are kept for whoever wants to know why."""
FREE_PAGES = 256
"""Free pages (4 KiB each) from which on some are given back."""
_AWAY = frozenset({errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO})
_BROKEN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_CUT_SHORT = frozenset({sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS})
_LOCK_S = 10.0

T = TypeVar("T")
Group = Sequence[Put | Delete]


class RecordFile:
    """`outbox`: remember for a remote store what was written."""

    def __init__(self, path: Path, *, outbox: bool = False) -> None:
        self.path = path
        self.rebuilt = 0
        """How often the file was replaced since it was opened: rows may be missing."""
        self._outbox = outbox
        self._lock: int | None = None
        self._shape = (0, 0, 0)
        self._db: sqlite3.Connection

    # ------------------------------------------------------------ open and close

    def open(self, wait_s: float = _LOCK_S) -> None:
        """Raises ConfigError where the file can't be a record, Retryable where the disk does not let it be one now,
        Permanent where another process has it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._take_lock(wait_s)
            self.path.touch(mode=0o600)
        except OSError as error:
            self._release_lock()
            if error.errno in _AWAY:
                raise Retryable(f"cannot write the record {self.path}: {error.strerror}") from error
            raise ConfigError(f"root-dir: cannot write {self.path}: {error.strerror}") from error
        try:
            self._connect_or_rebuild()
        except sqlite3.Error as error:
            self._release_lock()
            raise Retryable(f"cannot write the record {self.path}: {error}") from error
        except BaseException:
            self._release_lock()
            raise

    def close(self) -> None:
        self._db.close()
        self._release_lock()

    def _take_lock(self, wait_s: float) -> None:
        if self._lock is not None:
            return
        self._lock = os.open(self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    holder = os.pread(self._lock, 20, 0).decode(errors="replace").strip() or "unknown"
                    self._release_lock()
                    used = f"the record {self.path} is in use by another edgelet (pid {holder}): stop it first"
                    raise Permanent("RecordInUse", used) from None
                time.sleep(0.1)
            else:
                os.ftruncate(self._lock, 0)
                os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
                return

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _connect_or_rebuild(self) -> None:
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            if not _broken(error):
                raise
            self._rebuild(error)

    def _connect(self) -> None:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            version = schema.version_of(db, self.path)
            schema.prepare(db)
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise _Damaged(verdict)
            schema.migrate(db, version)
            self._shape = self._shape_now()
        except BaseException:
            db.close()
            raise
        self._db = db

    # ------------------------------------------------------------ a file that broke

    def _rebuild(self, why: Exception) -> None:
        """Set the file aside and start anew with what can be read of it."""
        aside = self.path.with_name(f"{self.path.name}.corrupt-{int(time.time())}")
        if self.path.exists():
            logger.error("record {} cannot be read ({}): set aside as {}, starting anew", self.path, why, aside.name)
        wal = self.path.with_name(self.path.name + "-wal")
        for old, new in ((self.path, aside), (wal, aside.with_name(aside.name + "-wal"))):
            if old.exists():
                old.rename(new)
        self.path.with_name(self.path.name + "-shm").unlink(missing_ok=True)
        self.path.touch(mode=0o600)
        self._connect()
        self.rebuilt += 1
        saved = list(salvaged(aside))
        if saved:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)",
                ((row.key, row.value, row.revision, checksum(row.key, row.value)) for row in saved),
            )
            self._db.execute("UPDATE counter SET revision = ?", (max(row.revision for row in saved),))
            self._db.execute("COMMIT")
            logger.warning("record {}: {} rows were saved from the broken file", self.path, len(saved))
        for old in sorted(self.path.parent.glob(f"{self.path.name}.corrupt-*[0-9]"))[:-KEPT_ASIDE]:
            for path in (old, old.with_name(old.name + "-wal"), old.with_name(old.name + "-shm")):
                path.unlink(missing_ok=True)

    def _mend(self, error: Exception) -> None:
        """Replace a file that broke while it was open."""
        self._db.close()
        self._rebuild(error)

    def guarded(self, work: Callable[[], T]) -> T:
        """Do it; where the file turns out to be broken or gone, do it again on a new one."""
        try:
            inode, *sizes = self._shape_now()
            if inode != self._shape[0]:
                self._mend(FileNotFoundError("the file was removed or replaced"))
            elif any(now < before for now, before in zip(sizes, self._shape[1:], strict=True)):
                self._mend(_Damaged("the file was cut short"))
            return work()
        except sqlite3.DatabaseError as error:
            if not _broken(error):
                raise
            self._mend(error)
            return work()
        finally:
            self._shape = self._shape_now()

    def _shape_now(self) -> tuple[int, int, int]:
        """Which file it is, and its and its log's size: only this process makes them smaller."""
        try:
            file = self.path.stat()
            return file.st_ino, file.st_size, self.path.with_name(self.path.name + "-wal").stat().st_size
        except FileNotFoundError:
            return 0, 0, 0
        except OSError:
            return self._shape  # an unreadable folder is not a missing file

    # ------------------------------------------------------------ rows

    def commit(self, groups: builtins.list[Group]) -> builtins.list[int]:
        return self.guarded(lambda: self._commit(groups))

    def get(self, key: str) -> tuple[tuple[Row, ...], builtins.list[str]]:
        """The row, and the keys of those that were dropped for their checksum."""
        return self.guarded(lambda: self._select("WHERE key = ?", (key,)))

    def list(self, prefix: str) -> tuple[tuple[Row, ...], builtins.list[str]]:
        # "\U0010ffff" sorts after every key character in use.
        return self.guarded(
            lambda: self._select("WHERE key >= ? AND key < ? ORDER BY key", (prefix, prefix + "\U0010ffff"))
        )

    @property
    def revision(self) -> int:
        (revision,) = self._db.execute("SELECT revision FROM counter").fetchone()
        return int(revision)

    def _commit(self, groups: builtins.list[Group]) -> builtins.list[int]:
        revisions: builtins.list[int] = []
        with self._transaction():
            revision = self.revision
            for changes in groups:
                revision += 1
                for change in changes:
                    if isinstance(change, Put):
                        self._put(Row(change.key, change.value, revision))
                    else:
                        self._db.execute("DELETE FROM rows WHERE key = ?", (change.key,))
                    if self._outbox:
                        self._db.execute("INSERT OR REPLACE INTO outbox VALUES (?, ?)", (change.key, revision))
                revisions.append(revision)
            self._db.execute("UPDATE counter SET revision = ?", (revision,))
        return revisions

    def _put(self, row: Row) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)",
            (row.key, row.value, row.revision, checksum(row.key, row.value)),
        )

    def _select(self, where: str, arguments: tuple[str, ...]) -> tuple[tuple[Row, ...], builtins.list[str]]:
        found: builtins.list[Row] = []
        bad: builtins.list[str] = []
        for key, value, revision, kept in self._db.execute(f"{ROWS} {where}", arguments):
            if checksum(key, value) == kept:
                found.append(Row(key, value, revision))
            else:
                bad.append(key)
        for key in bad:
            self._db.execute("DELETE FROM rows WHERE key = ?", (key,))
        return tuple(found), bad

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    # ------------------------------------------------------------ for a remote store

    def fact(self, name: str) -> str:
        """Empty where it was never said."""
        found = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(found[0]) if found else ""

    def unsent(self, limit: int) -> tuple[Change, ...]:
        """The oldest changes that the remote store has not taken yet, each key with its newest value."""
        found = self._db.execute(
            "SELECT o.key, r.value, o.revision FROM outbox o LEFT JOIN rows r ON r.key = o.key"
            " ORDER BY o.revision, o.key LIMIT ?",
            (limit,),
        )
        return tuple(Change(*row) for row in found)

    def count_unsent(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM outbox").fetchone()
        return int(count)

    def sent(self, changes: Iterable[Change]) -> None:
        """The remote store has them; what was written again since stays in the outbox."""
        changes = tuple(changes)
        with self._transaction():
            self._db.executemany(
                "DELETE FROM outbox WHERE key = ? AND revision = ?", ((one.key, one.revision) for one in changes)
            )
            newest = str(max((one.revision for one in changes), default=0))
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (schema.ACKNOWLEDGED, newest))

    def take_over(self, rows: Iterable[Row], send: Iterable[str], at_least: int) -> None:
        """Rows of the remote store become ours, the keys `send` go to it, and our revisions go on above its."""
        with self._transaction():
            for row in rows:
                self._put(row)
                self._db.execute("DELETE FROM outbox WHERE key = ?", (row.key,))
            revision = max(self.revision, at_least) + 1
            self._db.executemany("INSERT OR REPLACE INTO outbox VALUES (?, ?)", ((key, revision) for key in send))
            self._db.execute("UPDATE counter SET revision = ?", (revision,))

    # ------------------------------------------------------------ upkeep

    def verify(self) -> tuple[str, ...]:
        """What is wrong with the file; mends what it finds. Reads all of it."""
        before = self.rebuilt

        def look() -> tuple[str, ...]:
            # With a connection of its own: this one has pages in memory, which hide what became of the disk's.
            with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as fresh:
                (verdict,) = fresh.execute("PRAGMA quick_check(1)").fetchone()
                if verdict != "ok":
                    raise _Damaged(verdict)
                bad = [key for key, value, _, kept in fresh.execute(ROWS) if checksum(key, value) != kept]
            with self._transaction():
                for key in bad:
                    self._db.execute("DELETE FROM rows WHERE key = ?", (key,))
            return tuple(f"row {key} was corrupt and was dropped" for key in bad)

        found = self.guarded(look)
        return ("the file was broken and was made anew",) if self.rebuilt > before else found

    def compact(self) -> None:
        """Give free pages back to the disk, in steps that don't hold writers up."""
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        if free > FREE_PAGES:
            # A script: execute() would make one step of it, a page.
            self._db.executescript(f"PRAGMA incremental_vacuum({free - FREE_PAGES // 2})")

    def scrub(self) -> None:
        """Leave nothing behind of what was overwritten, in the file or in its log."""
        self._db.execute("VACUUM")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @property
    def size_bytes(self) -> int:
        return sum(
            path.stat().st_size
            for suffix in ("", "-wal", "-shm")
            if (path := self.path.with_name(self.path.name + suffix)).exists()
        )


class _Damaged(sqlite3.DatabaseError):
    """quick_check found it, so there is no error code."""


class _Transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


ROWS = "SELECT key, value, revision, checksum FROM rows"


def salvaged(path: Path) -> Iterator[Row]:
    """The rows that can be read of a file, broken or on a disk that can't be written; each with a good checksum.

    The table is read from both its ends: what lies beyond a broken page is met from the other side.
    """
    if not path.exists():
        return
    seen: set[str] = set()
    # Immutable: no lock and no shared memory beside it. With a log there it must be read too.
    way = (
        "mode=ro" if path.with_name(path.name + "-wal").exists() and os.access(path.parent, os.W_OK) else "immutable=1"
    )
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?{way}", uri=True)
    except sqlite3.Error:
        return
    try:
        for order in ("ASC", "DESC"):
            try:
                for key, value, revision, kept in db.execute(f"{ROWS} ORDER BY key {order}"):
                    if key in seen:
                        break
                    if isinstance(key, str) and isinstance(value, bytes) and checksum(key, value) == kept:
                        seen.add(key)
                        yield Row(key, value, int(revision))
                else:
                    return
            except (sqlite3.Error, ValueError, OverflowError):
                continue
    finally:
        db.close()


def _broken(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return isinstance(error, _Damaged) or code & 0xFF in _BROKEN or code in _CUT_SHORT


def checksum(key: str, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key.encode()))
