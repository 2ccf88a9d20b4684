"""The last status of every pod outlives the agent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from agent.errors import Retryable
from agent.model.status import Phase, PodStatus
from agent.pods.status_record import StatusRecord
from agent.store.base import Delete, Put
from tests.fakes.store import MemoryStore
from tests.fakes.virtual_time import beside, in_virtual_time

RUNNING, FAILED = PodStatus(phase=Phase.RUNNING), PodStatus(phase=Phase.FAILED)


class FullDisk(MemoryStore):
    full = True

    async def batch(self, changes: Sequence[Put | Delete]) -> int:
        if self.full:
            raise Retryable("disk full")
        return await super().batch(changes)


@in_virtual_time
async def test_what_was_put_is_there_after_a_restart() -> None:
    store = MemoryStore()
    before = StatusRecord(store)

    async def work() -> None:
        before.put("u-1", RUNNING)
        before.put("u-2", FAILED)
        await asyncio.sleep(1)

    await beside(before.run(), work)
    assert await StatusRecord(store).load() == {"u-1": RUNNING, "u-2": FAILED}


@in_virtual_time
async def test_many_changes_within_a_moment_are_one_write_a_pod() -> None:
    store = MemoryStore()
    mine = StatusRecord(store)

    async def work() -> None:
        for status in (RUNNING, FAILED, RUNNING, FAILED):
            mine.put("u-1", status)
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)

    await beside(mine.run(), work)
    assert len(store.writes) == 1
    assert await mine.load() == {"u-1": FAILED}


@in_virtual_time
async def test_a_forgotten_pod_leaves_the_record() -> None:
    store = MemoryStore()
    mine = StatusRecord(store)

    async def work() -> None:
        mine.put("u-1", RUNNING)
        await asyncio.sleep(1)
        mine.forget("u-1")
        await asyncio.sleep(1)

    await beside(mine.run(), work)
    assert store.rows == {}


@in_virtual_time
async def test_the_last_statuses_are_written_when_the_agent_stops() -> None:
    store = MemoryStore()
    mine = StatusRecord(store)

    async def work() -> None:
        mine.put("u-1", RUNNING)

    await beside(mine.run(), work)
    await asyncio.sleep(0.1)
    assert await mine.load() == {"u-1": RUNNING}


@in_virtual_time
async def test_what_a_full_disk_refused_is_written_with_the_next() -> None:
    store = FullDisk()
    mine = StatusRecord(store)

    async def work() -> None:
        mine.put("u-1", FAILED)
        mine.put("u-2", RUNNING)
        await asyncio.sleep(1)
        store.full = False
        mine.put("u-2", FAILED)
        await asyncio.sleep(1)

    await beside(mine.run(), work)
    assert await mine.load() == {"u-1": FAILED, "u-2": FAILED}


@pytest.mark.parametrize("row", [b'{"phase": 3}', b"{not json"])
async def test_a_row_that_cannot_be_read_is_left_alone(row: bytes) -> None:
    store = MemoryStore()
    await store.put("status/u-1", row)
    await store.put("status/u-2", b'{"phase": "Running"}')
    assert list(await StatusRecord(store).load()) == ["u-2"]
    assert store.rows["status/u-1"].value == row
