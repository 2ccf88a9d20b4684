"""SQLite keeps the contract of the record."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.store.base import Store
from agent.store.sqlite import SqliteStore
from tests.unit.store.contract import Reopen, StoreContract


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[list[SqliteStore]]:
    stores: list[SqliteStore] = []
    yield stores
    for store in stores:
        await store.close()


@pytest.fixture
async def store(tmp_path: Path, opened: list[SqliteStore]) -> Store:
    opened.append(await SqliteStore.open(tmp_path / "record.db"))
    return opened[0]


@pytest.fixture
async def other_node(tmp_path: Path, opened: list[SqliteStore]) -> Store:
    opened.append(await SqliteStore.open(tmp_path / "other" / "record.db"))
    return opened[-1]


@pytest.fixture
def reopen(tmp_path: Path, opened: list[SqliteStore]) -> Reopen:
    async def again() -> Store:
        await opened[0].close()
        opened.append(await SqliteStore.open(tmp_path / "record.db"))
        return opened[-1]

    return again


class TestSqlite(StoreContract):
    pass
