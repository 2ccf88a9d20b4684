"""Put the record together from the settings: memory above sealing above the file, and what must run beside them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from agent.clock import Clock
from agent.config import Settings
from agent.store.base import Row
from agent.store.held import Backend, HeldStore, is_held
from agent.store.seal import Sealer, Unreadable, is_sealed
from agent.store.sealed import SealedStore
from agent.store.sqlite import SqliteStore
from agent.store.sqlite_file import salvaged


async def open_record(settings: Settings, clock: Clock) -> HeldStore:
    """Raises ConfigError, and Permanent where another agent has the record."""
    path = record_path(settings)
    sealer = make_sealer(settings)

    async def connect() -> Backend:
        file = await SqliteStore.open(path)
        try:
            return Backend(await SealedStore.open(file, sealer, file.scrub), file)
        except BaseException:
            await file.close()
            raise

    async def readable() -> list[Row]:
        return await asyncio.to_thread(_readable, path, sealer)

    return await HeldStore.open(connect, readable, clock)


def record_path(settings: Settings) -> Path:
    return settings.root_dir.absolute() / "record.db"


def make_sealer(settings: Settings) -> Sealer:
    root = settings.root_dir.absolute()
    return Sealer(
        settings.store_key_file or root.with_name(root.name + ".key"), os.environ.get("CREDENTIALS_DIRECTORY", "")
    )


def _readable(path: Path, sealer: Sealer) -> list[Row]:
    """What the agent needs of a record that can't be opened for writing."""
    rows: list[Row] = []
    for row in salvaged(path):
        if not is_held(row.key):
            continue
        if not is_sealed(row.value):
            rows.append(row)
            continue
        try:
            rows.append(Row(row.key, sealer.unseal(row.key, row.value), row.revision))
        except Unreadable:
            continue  # as if it were not there
    return rows
