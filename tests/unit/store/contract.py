"""What every backend of the record must do, as tests. A class per backend has these and a `store` fixture.

`reopen` closes the store and opens the same record again; `other_node` is another node's record in the same place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from agent.store.base import BATCH_LIMIT, Change, Delete, Put, Store
from tests.fakes.waiting import PATIENCE_S

Reopen = Callable[[], Awaitable[Store]]


async def take(changes: AsyncIterator[Change], count: int) -> list[tuple[str, bytes | None]]:
    async with asyncio.timeout(PATIENCE_S):
        return [(change.key, change.value) for change in [await anext(changes) for _ in range(count)]]


class StoreContract:
    async def test_what_was_put_is_read_and_what_was_not_is_none(self, store: Store) -> None:
        revision = await store.put("pods/a", b"one\x00\xff")
        row = await store.get("pods/a")
        assert row is not None
        assert (row.key, row.value, row.revision) == ("pods/a", b"one\x00\xff", revision)
        assert await store.get("pods") is None
        assert await store.get("pods/a/b") is None

    async def test_an_empty_value_is_a_value(self, store: Store) -> None:
        await store.put("a", b"")
        row = await store.get("a")
        assert row is not None
        assert row.value == b""

    async def test_revisions_only_grow(self, store: Store) -> None:
        revisions = [
            await store.put("a", b"1"),
            await store.put("a", b"1"),
            await store.delete("a"),
            await store.batch([Put("a", b"2"), Put("b", b"3")]),
        ]
        assert revisions == sorted(set(revisions))
        assert {row.revision for row in await store.list("")} == {revisions[-1]}

    async def test_list_returns_only_the_prefix_in_order_of_key(self, store: Store) -> None:
        await store.batch([Put("pods/b", b"2"), Put("pods/a", b"1"), Put("podsx", b"3"), Put("node", b"4")])
        await store.batch([Put("pods/ä*?[", b"5"), Put("pods/a/b", b"6")])
        assert [row.key for row in await store.list("pods/")] == ["pods/a", "pods/a/b", "pods/b", "pods/ä*?["]
        assert [row.key for row in await store.list("pods/ä*")] == ["pods/ä*?["]
        assert len(await store.list("")) == 6
        assert await store.list("nothing/") == ()

    async def test_deleting_what_is_not_there_is_no_error(self, store: Store) -> None:
        await store.put("a", b"1")
        assert await store.delete("b") > 0
        await store.delete("a")
        assert await store.list("") == ()

    async def test_of_two_changes_of_one_key_in_a_batch_the_last_counts(self, store: Store) -> None:
        await store.batch([Put("a", b"1"), Delete("a"), Put("a", b"2"), Put("b", b"1"), Delete("b")])
        assert [(row.key, row.value) for row in await store.list("")] == [("a", b"2")]

    async def test_a_reader_never_sees_half_of_a_batch(self, store: Store) -> None:
        keys = [f"half/{number}" for number in range(BATCH_LIMIT // 2)]
        done = asyncio.Event()

        async def write() -> None:
            for turn in range(10):
                await store.batch([Put(key, str(turn).encode()) for key in keys])
                await store.batch([Delete(key) for key in keys])
            done.set()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write(), name="writer")
            while not done.is_set():
                rows = await store.list("half/")
                assert len(rows) in (0, len(keys))
                assert len({row.value for row in rows}) <= 1

    async def test_writes_that_arrive_together_are_all_kept(self, store: Store) -> None:
        revisions = await asyncio.gather(*(store.put(f"k/{i:03}", str(i).encode()) for i in range(100)))
        assert len(set(revisions)) == 100
        assert [int(row.value) for row in await store.list("k/")] == list(range(100))

    async def test_large_and_many_values(self, store: Store) -> None:
        await store.put("large", b"\x01" * 1_048_576)
        for start in range(0, 3000, BATCH_LIMIT):
            await store.batch([Put(f"many/{start + number:05}", b"x") for number in range(BATCH_LIMIT)])
        assert len(await store.list("many/")) == 3000
        row = await store.get("large")
        assert row is not None
        assert len(row.value) == 1_048_576

    async def test_a_watcher_sees_what_is_committed_below_its_prefix_in_order(self, store: Store) -> None:
        await store.put("pods/before", b"0")
        async with store.watch("pods/") as changes:
            await store.put("pods/a", b"1")
            await store.put("podsx", b"x")
            await store.batch([Put("pods/b", b"2"), Put("other", b"x"), Delete("pods/before")])
            await store.delete("pods/a")
            seen = await take(changes, 4)
        assert seen[0] == ("pods/a", b"1")
        assert set(seen[1:3]) == {("pods/b", b"2"), ("pods/before", None)}
        assert seen[3] == ("pods/a", None)

    async def test_a_watched_change_has_the_revision_of_its_write(self, store: Store) -> None:
        async with store.watch("") as changes:
            revision = await store.batch([Put("a", b"1"), Put("b", b"1")])
            async with asyncio.timeout(PATIENCE_S):
                assert [(await anext(changes)).revision for _ in range(2)] == [revision, revision]

    async def test_two_watchers_each_see_everything(self, store: Store) -> None:
        async with store.watch("") as one, store.watch("a") as two:
            await store.put("a", b"1")
            assert await take(one, 1) == await take(two, 1) == [("a", b"1")]

    async def test_a_watch_ends_when_the_store_is_closed(self, store: Store) -> None:
        async with store.watch("") as changes, asyncio.TaskGroup() as tasks:

            async def follow() -> list[Change]:
                return [change async for change in changes]

            seen = tasks.create_task(follow(), name="follow")
            await asyncio.sleep(0)
            await store.close()
        assert seen.result() == []

    async def test_everything_is_there_after_reopening_and_revisions_go_on(self, store: Store, reopen: Reopen) -> None:
        await store.batch([Put("a", b"1"), Put("b", b"2")])
        last = await store.delete("b")
        store = await reopen()
        assert [(row.key, row.value) for row in await store.list("")] == [("a", b"1")]
        assert await store.put("c", b"3") > last

    async def test_another_nodes_record_is_another(self, store: Store, other_node: Store) -> None:
        async with store.watch("") as changes:
            await store.put("a", b"mine")
            await other_node.batch([Put("a", b"its"), Put("b", b"its")])
            await other_node.delete("a")
            await store.put("c", b"mine")
            assert await take(changes, 2) == [("a", b"mine"), ("c", b"mine")]
        assert [(row.key, row.value) for row in await store.list("")] == [("a", b"mine"), ("c", b"mine")]
        assert [(row.key, row.value) for row in await other_node.list("")] == [("b", b"its")]
