"""Put the record together from the settings: memory above sealing above the file, and a server beside it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from agent.clock import Clock
from agent.config import Settings
from agent.store import address
from agent.store.base import Row
from agent.store.held import Backend, HeldStore, is_held
from agent.store.seal import Sealer, Unreadable, is_sealed
from agent.store.sealed import SealedStore
from agent.store.sqlite import SqliteStore
from agent.store.sqlite_file import salvaged


async def open_record(settings: Settings, clock: Clock) -> HeldStore:
    """Raises ConfigError, and Permanent where another agent has the record."""
    where = store_address(settings)
    sealer = make_sealer(settings)
    held: HeldStore | None = None

    def reload() -> None:
        if held is not None:
            held.reload()

    async def connect() -> Backend:
        file = await SqliteStore.open(local_path(settings, where), outbox=where.remote)
        try:
            if not where.remote:
                return Backend(await SealedStore.open(file, sealer, file.scrub), file)
            from agent.store.remote import connect
            from agent.store.write_behind import WriteBehind

            remote = await connect(where, settings.node_name)
            both = WriteBehind(file, remote, str(where), clock)
            both.notify(reload)
            await both.start()
            return Backend(await SealedStore.open(both, sealer, file.scrub), file, both.run)
        except BaseException:
            await file.close()
            raise

    async def readable() -> list[Row]:
        return await asyncio.to_thread(_readable, local_path(settings, where), sealer)

    held = await HeldStore.open(connect, readable, clock)
    return held


def store_address(settings: Settings) -> address.StoreAddress:
    if settings.store:
        return address.parse(settings.store)
    return address.StoreAddress(address.Kind.SQLITE, settings.root_dir.absolute() / "record.db")


def local_path(settings: Settings, where: address.StoreAddress) -> Path:
    """The SQLite file: the record itself, or the local copy of one on a server."""
    return where.path or settings.root_dir.absolute() / "record.db"


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
