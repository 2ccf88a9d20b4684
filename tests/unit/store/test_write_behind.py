"""The local record and the one on a server: which side wins, and that nobody waits for the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from agent.errors import Permanent, Retryable
from agent.store.base import Delete, Put, Row
from agent.store.claim import LIFE_S
from agent.store.sqlite import SqliteStore
from agent.store.write_behind import FILLED_FROM, WriteBehind
from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import PATIENCE_S


class Server(MemoryStore):
    """Another machine's store, which can be away, slow for ever, or refuse a row."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.refused = ""
        self.words: list[bytes] = []
        self.stands: bytes | None = None
        self.batches: list[list[str]] = []

    async def get(self, key: str) -> Row | None:
        self._answer()
        return await super().get(key)

    async def list(self, prefix: str) -> tuple[Row, ...]:
        self._answer()
        return await super().list(prefix)

    async def batch(self, changes: Sequence[Put | Delete]) -> int:
        self._answer()
        if self.words and self.stands != self.words[-1]:
            raise Retryable("the word does not stand")
        if self.refused and any(change.key == self.refused for change in changes):
            raise Permanent("TooLarge", "too large")
        self.batches.append([change.key for change in changes if change.key != FILLED_FROM])
        return await super().batch(changes)

    async def take(self, word: bytes, life_s: int, over: bytes | None) -> bool:
        self._answer()
        if over != self.stands:
            return False
        self.words.append(word)
        self.stands = word
        return True

    async def alive(self) -> bytes | None:
        self._answer()
        return self.stands

    def _answer(self) -> None:
        if self.away:
            raise Retryable("the server does not answer")

    @property
    def content(self) -> dict[str, bytes]:
        return {key: row.value for key, row in self.rows.items() if key != FILLED_FROM}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "record.db", outbox=True)
    yield store
    await store.close()


@pytest.fixture
def both(local: SqliteStore, server: Server) -> WriteBehind:
    return WriteBehind(local, server, "the server", FakeClock())


async def content(store: SqliteStore) -> dict[str, bytes]:
    return {row.key: row.value for row in await store.list("")}


async def test_what_was_written_while_it_was_away_goes_in_order_with_its_newest_values(
    both: WriteBehind, server: Server
) -> None:
    await both.synchronize()
    server.away = True
    for number in range(150):
        await both.put(f"k/{number:03}", b"1")
    await both.put("k/000", b"2")
    await both.delete("k/001")
    with pytest.raises(Retryable):
        await both.synchronize()
    server.away = False
    await both.synchronize()
    sent = [key for batch in server.batches for key in batch]
    assert sent == [f"k/{number:03}" for number in range(2, 150)] + ["k/000", "k/001"]
    assert server.content["k/000"] == b"2"
    assert "k/001" not in server.content
    assert all(len(batch) < 100 for batch in server.batches)


async def test_a_batch_is_one_batch_at_the_server(both: WriteBehind, server: Server) -> None:
    await both.batch([Put("a", b"1"), Put("b", b"1"), Delete("c")])
    await both.synchronize()
    assert server.batches == [["a", "b", "c"]]


async def test_a_server_that_knows_this_file_and_its_revision_is_sent_only_what_is_new(
    both: WriteBehind, local: SqliteStore, server: Server
) -> None:
    await both.put("a", b"1")
    await both.synchronize()
    await both.put("b", b"1")
    await WriteBehind(local, server, "the server", FakeClock()).synchronize()
    assert server.batches == [["a"], ["b"]]


async def test_a_server_that_lost_its_last_changes_gets_them_again(
    both: WriteBehind, local: SqliteStore, server: Server
) -> None:
    await both.batch([Put("a", b"1"), Put("b", b"1")])
    await both.synchronize()
    earlier = dict(server.rows)
    await both.put("a", b"2")
    await both.delete("b")
    await both.synchronize()
    server.rows = earlier
    await WriteBehind(local, server, "the server", FakeClock()).synchronize()
    assert server.content == await content(local) == {"a": b"2"}


async def test_an_empty_file_starts_from_the_server(both: WriteBehind, local: SqliteStore, server: Server) -> None:
    await server.batch([Put("pods/a", b"1"), Put(FILLED_FROM, b'{"incarnation": "other", "revision": 40}')])
    told: list[bool] = []
    both.notify(lambda: told.append(True))
    await both.start()
    assert await content(local) == {"pods/a": b"1"}
    assert told == [True]
    assert await both.put("pods/b", b"1") > 40


async def test_an_empty_file_does_not_wait_for_a_server_that_is_away(both: WriteBehind, server: Server) -> None:
    server.away = True
    await both.start()
    await both.put("a", b"1")


async def test_of_a_new_file_and_an_old_server_what_was_just_written_wins_and_the_rest_is_kept(
    both: WriteBehind, local: SqliteStore, server: Server
) -> None:
    await server.batch(
        [
            *(Put(key, b"old") for key in ("both", "deleted", "only-there")),
            Put(FILLED_FROM, b'{"incarnation": "other", "revision": 40}'),
        ]
    )
    await both.batch([Put("both", b"new"), Put("only-here", b"new"), Delete("deleted")])
    await both.synchronize()
    assert server.content == await content(local) == {"both": b"new", "only-here": b"new", "only-there": b"old"}


@pytest.mark.parametrize(("theirs", "winner"), [(1, b"here"), (1000, b"there")])
async def test_of_rows_that_were_sent_elsewhere_before_the_greater_revision_wins(
    both: WriteBehind, local: SqliteStore, server: Server, theirs: int, winner: bytes
) -> None:
    for _ in range(10):
        await local.put("a", b"here")
    await local.sent(await local.unsent(10))
    mark = f'{{"incarnation": "other", "revision": {theirs}}}'.encode()
    await server.batch([Put("a", b"there"), Put(FILLED_FROM, mark)])
    await both.synchronize()
    assert server.content == await content(local) == {"a": winner}


async def test_a_row_that_the_server_refuses_holds_no_other_up(both: WriteBehind, server: Server) -> None:
    server.refused = "large"
    await both.batch([Put("a", b"1"), Put("large", b"x"), Put("z", b"1")])
    await both.put("later", b"1")
    await both.synchronize()
    assert server.content == {"a": b"1", "z": b"1", "later": b"1"}


async def test_it_is_told_that_the_node_lives_thrice_in_a_words_life(local: SqliteStore, server: Server) -> None:
    clock = FakeClock()
    both = WriteBehind(local, server, "the server", clock)
    await both.synchronize()
    await both.synchronize()
    assert len(server.words) == 1
    await clock.advance(LIFE_S / 3)
    await both.synchronize()
    assert len(server.words) == 2


async def test_its_task_goes_on_through_an_outage(local: SqliteStore, server: Server) -> None:
    clock = FakeClock()
    both = WriteBehind(local, server, "the server", clock)
    server.away = True
    running = asyncio.ensure_future(both.run())
    await both.put("a", b"1")
    await clock.advance(5)
    assert server.content == {}
    server.away = False
    async with asyncio.timeout(PATIENCE_S):
        while server.content != {"a": b"1"}:
            await clock.advance(10)
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


OTHERS = b'{"version": "0.1", "since": 1700000000, "host": "cabinet-7", "incarnation": "another", "session": "s"}'


async def test_the_second_agent_of_a_name_is_refused_in_one_line_while_the_first_lives(
    both: WriteBehind, server: Server
) -> None:
    await server.batch([Put("pods/a", b"1")])
    server.stands = OTHERS
    for begin in (both.start, both.run):
        with pytest.raises(Permanent, match=r"another agent of this node's name lives .*host cabinet-7") as refused:
            await begin()
        assert "\n" not in str(refused.value)
    await both.put("b", b"1")
    server.stands = None
    await both.synchronize()
    assert server.content == {"pods/a": b"1", "b": b"1"}


async def test_an_agent_that_starts_again_on_its_file_takes_its_predecessors_word_over(
    both: WriteBehind, local: SqliteStore, server: Server
) -> None:
    await both.synchronize()
    await WriteBehind(local, server, "the server", FakeClock()).synchronize()
    assert len(server.words) == 2


async def test_one_that_lost_its_word_during_an_outage_goes_on_alone_and_writes_nothing_there(
    local: SqliteStore, server: Server
) -> None:
    clock = FakeClock()
    both = WriteBehind(local, server, "the server", clock)
    running = asyncio.ensure_future(both.run())
    await both.put("a", b"1")
    async with asyncio.timeout(PATIENCE_S):
        while server.content != {"a": b"1"}:
            await clock.advance(1)
    server.stands = OTHERS
    await clock.advance(LIFE_S)
    await both.put("b", b"1")
    for _ in range(20):
        await clock.advance(5)
    assert server.content == {"a": b"1"}
    assert not running.done()
    server.stands = None
    async with asyncio.timeout(PATIENCE_S):
        while server.content != {"a": b"1", "b": b"1"}:
            await clock.advance(5)
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_copy_of_the_file_elsewhere_takes_the_word_and_the_first_does_not_take_it_back(
    both: WriteBehind, local: SqliteStore, server: Server
) -> None:
    clock = FakeClock()
    first = WriteBehind(local, server, "the server", clock)
    await first.synchronize()
    await WriteBehind(local, server, "the server", FakeClock()).synchronize()
    await clock.advance(LIFE_S)
    with pytest.raises(Permanent, match="another agent"):
        await first.synchronize()
