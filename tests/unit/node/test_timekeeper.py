"""The known time in the record: written seldom, read at the start, of no use broken and no obstacle then."""

from __future__ import annotations

import asyncio

import msgspec

from agent.known_time import KnownTime, Reading
from agent.node.timekeeper import KEY, WRITE_EVERY_S, Timekeeper
from tests.fakes.store import MemoryStore
from tests.fakes.virtual_time import beside, elapsed, in_virtual_time

NOW = 1_800_000_000.0


class Clocks:
    def __init__(self) -> None:
        self.offset = NOW
        self.boot = "first"

    def read(self) -> Reading:
        return Reading(self.boot, elapsed(), elapsed() + self.offset)


@in_virtual_time
async def test_the_known_time_is_written_once_a_minute_and_a_later_agent_goes_on_from_it() -> None:
    store, clocks = MemoryStore(), Clocks()
    keeper = await Timekeeper.load(store, corrigible=True, read=clocks.read)

    async def an_hour() -> None:
        await asyncio.sleep(3600)

    await beside(keeper.run(), an_hour)
    assert 3600 / WRITE_EVERY_S <= len(store.writes) <= 3600 / WRITE_EVERY_S + 3
    clocks.boot, clocks.offset = "second", 0.0
    again = await Timekeeper.load(store, corrigible=True, read=clocks.read)
    assert again.wall() == NOW + 3600
    assert again.since(NOW + 600) == 3000


@in_virtual_time
async def test_what_the_api_server_says_is_written_soon() -> None:
    store, clocks = MemoryStore(), Clocks()
    keeper = await Timekeeper.load(store, corrigible=True, read=clocks.read)

    async def told() -> None:
        await asyncio.sleep(1)
        keeper.heard(NOW + 500)
        await asyncio.sleep(5)

    await beside(keeper.run(), told)
    row = msgspec.json.decode(store.rows[KEY].value, type=KnownTime)
    assert row.told
    assert len(row.steps) == 2
    assert keeper.wall() == NOW + 505


@in_virtual_time
async def test_a_row_that_is_none_is_no_obstacle() -> None:
    store, clocks = MemoryStore(), Clocks()
    await store.put(KEY, b'{"boot": 1}')
    keeper = await Timekeeper.load(store, corrigible=True, read=clocks.read)
    assert keeper.wall() == NOW
    assert keeper.since(NOW - 7) == 7


async def test_it_reads_the_machines_own_clocks() -> None:
    keeper = await Timekeeper.load(MemoryStore(), corrigible=False)
    assert keeper.since(keeper.wall()) < 1
