"""The agent keeps its record through a disk that refuses, breaks, or is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from agent.errors import Retryable
from agent.store.base import Delete, Put, Row
from agent.store.held import COMPACT_EVERY_S, VERIFY_EVERY_S, Backend, HeldStore
from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore


class Disk(MemoryStore):
    """A file of rows that may be full, break, or be away."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.rebuilt = 0
        self.compacted = 0
        self.problems: tuple[str, ...] = ()

    async def batch(self, changes: Sequence[Put | Delete]) -> int:
        await asyncio.sleep(0)
        if self.full:
            raise Retryable("the disk is full")
        return await super().batch(changes)

    async def verify(self) -> tuple[str, ...]:
        return self.problems

    async def compact(self) -> None:
        self.compacted += 1

    def lose(self, *keys: str) -> None:
        for key in keys:
            del self.rows[key]
        self.rebuilt += 1


@dataclass
class Scene:
    disk: Disk = field(default_factory=Disk)
    clock: FakeClock = field(default_factory=FakeClock)
    away: bool = False
    readable: list[Row] = field(default_factory=list)
    turns: list[str] = field(default_factory=list)

    async def connect(self) -> Backend:
        if self.away:
            raise Retryable("read-only file system")
        return Backend(self.disk, self.disk)

    async def _readable(self) -> list[Row]:
        return self.readable

    @asynccontextmanager
    async def store(self) -> AsyncIterator[HeldStore]:
        held = await HeldStore.open(self.connect, self._readable, self.clock)
        held.notify(lambda: self.turns.append(held.trouble))
        running = asyncio.get_running_loop().create_task(held.run())
        try:
            yield held
        finally:
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await held.close()

    @property
    def on_disk(self) -> dict[str, bytes]:
        return {key: row.value for key, row in self.disk.rows.items()}


async def test_what_is_on_the_disk_is_read_from_memory() -> None:
    scene = Scene()
    await scene.disk.batch([Put("pods/a", b"1"), Put("cache/x", b"2")])
    async with scene.store() as held:
        scene.disk.rows.pop("pods/a")
        row = await held.get("pods/a")
        assert row is not None
        assert row.value == b"1"
        assert [row.key for row in await held.list("")] == ["cache/x", "pods/a"]


async def test_a_full_disk_keeps_nothing_back_and_gets_everything_in_order_once_it_takes_it() -> None:
    scene = Scene()
    async with scene.store() as held:
        await held.put("pods/a", b"old")
        scene.disk.full = True
        await held.put("pods/a", b"new")
        await held.delete("pods/never")
        await held.batch([Put("pods/b", b"1"), Put("status/b", b"1")])
        await held.delete("status/b")
        assert held.trouble == "the disk is full"
        row = await held.get("pods/a")
        assert row is not None
        assert row.value == b"new"
        assert await held.get("status/b") is None
        await scene.clock.advance(30)
        assert scene.on_disk == {"pods/a": b"old"}

        scene.disk.full = False
        await scene.clock.advance(11)
        assert scene.on_disk == {"pods/a": b"new", "pods/b": b"1"}
        assert held.trouble == ""
        assert scene.turns == ["the disk is full", ""]
        await held.put("pods/c", b"at once")
        assert scene.on_disk["pods/c"] == b"at once"


async def test_a_write_that_overtook_a_refused_one_stays() -> None:
    scene = Scene()
    async with scene.store() as held:
        scene.disk.full = True
        first = asyncio.ensure_future(held.put("pods/a", b"1"))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(held.put("pods/a", b"2"))
        await first
        scene.disk.full = False
        await second
        await scene.clock.advance(30)
        row = await held.get("pods/a")
        assert row is not None
        assert row.value == scene.on_disk["pods/a"] == b"2"


async def test_other_rows_fail_as_the_disk_does() -> None:
    scene = Scene()
    async with scene.store() as held:
        scene.disk.full = True
        with pytest.raises(Retryable):
            await held.put("cache/x", b"1")
        assert held.trouble == ""


async def test_a_record_that_cannot_be_opened_is_served_as_it_can_be_read_and_opened_later() -> None:
    scene = Scene(away=True, readable=[Row("pods/a", b"1", 7)])
    await scene.disk.put("pods/a", b"1")
    async with scene.store() as held:
        assert [row.key for row in await held.list("pods/")] == ["pods/a"]
        assert held.trouble == "read-only file system"
        await held.put("pods/b", b"2")
        with pytest.raises(Retryable, match="read-only"):
            await held.get("cache/x")
        scene.away = False
        await scene.clock.advance(11)
        assert scene.on_disk == {"pods/a": b"1", "pods/b": b"2"}
        assert held.trouble == ""


async def test_a_file_that_was_made_anew_is_filled_with_what_it_lacks() -> None:
    scene = Scene()
    async with scene.store() as held:
        await held.batch([Put("pods/a", b"1"), Put("pods/b", b"2")])
        scene.disk.lose("pods/a", "pods/b")
        await held.put("pods/c", b"3")
        await scene.clock.advance(1)
        assert scene.on_disk == {"pods/a": b"1", "pods/b": b"2", "pods/c": b"3"}


async def test_a_row_that_a_regular_look_finds_broken_is_written_again() -> None:
    scene = Scene()
    async with scene.store() as held:
        await held.put("pods/a", b"1")
        scene.disk.rows.clear()
        scene.disk.problems = ("row pods/a was corrupt and was dropped",)
        await scene.clock.advance(VERIFY_EVERY_S + COMPACT_EVERY_S)
        assert scene.on_disk == {"pods/a": b"1"}
        assert scene.disk.compacted >= 10


async def test_what_waits_is_written_at_the_end() -> None:
    scene = Scene()
    async with scene.store() as held:
        scene.disk.full = True
        await held.put("pods/a", b"1")
        scene.disk.full = False
    assert scene.on_disk == {"pods/a": b"1"}


async def test_a_watcher_hears_of_what_the_disk_has_not_taken() -> None:
    scene = Scene()
    async with scene.store() as held, held.watch("pods/") as changes:
        scene.disk.full = True
        revision = await held.put("pods/a", b"1")
        change = await anext(changes)
        assert (change.key, change.value, change.revision) == ("pods/a", b"1", revision)
