"""The tables of the SQLite record, by version, and how a file of an older version becomes one of the newest.

A step is one transaction with the version's number in it, so that a power cut leaves a file of one version or the
other. Steps only ever get appended: files of every version are in the field.
"""

from __future__ import annotations

import sqlite3
import uuid

from agent.errors import ConfigError

STEPS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL,"
        " checksum INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS counter (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL)",
        "INSERT OR IGNORE INTO counter VALUES (1, 0)",
    ),
    (
        # What a remote store has not been told yet. A key that has no row any more was deleted.
        "CREATE TABLE outbox (key TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE INDEX outbox_in_order ON outbox (revision)",
        "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    ),
)
VERSION = len(STEPS)
INCARNATION = "incarnation"
"""The fact that tells one file from the next that stands in its place."""
ACKNOWLEDGED = "acknowledged"
"""The revision up to which the remote store has everything."""

LIMIT_BYTES = 256 * 1024 * 1024
"""A record that grows without end must not fill a machine's disk; beyond it counts as a full one."""
_INCREMENTAL = 2


def prepare(db: sqlite3.Connection) -> None:
    """What must be said to a connection, in part before the first table is made."""
    # Deleted content is overwritten: a Secret that is gone must be gone. Pages that became free can be given back.
    db.execute("PRAGMA secure_delete=ON")
    db.execute("PRAGMA auto_vacuum=INCREMENTAL")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    # The default connection cache is 2 MiB; a node's record is small and the page cache holds it anyway.
    db.execute("PRAGMA cache_size=-512")
    db.execute(f"PRAGMA max_page_count={LIMIT_BYTES // 4096}")
    db.execute(f"PRAGMA journal_size_limit={4 * 1024 * 1024}")


def version_of(db: sqlite3.Connection, where: object) -> int:
    """Raises ConfigError for a file of a newer version than this program knows."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise ConfigError(f"root-dir: {where} was written by a newer edgelet (schema {version} > {VERSION})")
    return int(version)


def migrate(db: sqlite3.Connection, version: int) -> None:
    for number in range(version, VERSION):
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in STEPS[number]:
                db.execute(statement)
            db.execute(f"PRAGMA user_version={number + 1}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    db.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (INCARNATION, str(uuid.uuid4())))
    if db.execute("PRAGMA auto_vacuum").fetchone() != (_INCREMENTAL,):
        # A file of the first version: pages that it gave up keep their content, and it can't shrink.
        db.execute("VACUUM")
