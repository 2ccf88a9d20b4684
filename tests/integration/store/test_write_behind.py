"""A record on a server that is away is ridden out by the local one, and either side can be lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.errors import Retryable
from agent.store.address import parse
from agent.store.base import Put, Row, Store
from agent.store.remote import Remote, connect
from agent.store.sqlite import SqliteStore
from agent.store.write_behind import FILLED_FROM, WriteBehind
from hack.store_servers import Server
from tests.integration.store.conftest import Connect

OwnServer = Callable[[str], Server]
Kinds = pytest.mark.parametrize("kind", ["redis", "etcd"])


@asynccontextmanager
async def both(folder: Path, server: Server, node: str) -> AsyncIterator[WriteBehind]:
    """The node's record over `folder` and the server, with its task running."""
    local = await SqliteStore.open(folder / "record.db", outbox=True)
    store = WriteBehind(local, await connect(parse(server.url), node, {}), "the server", SystemClock())
    await store.start()
    running = asyncio.ensure_future(store.run())
    try:
        yield store
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()


async def rows(store: Store) -> dict[str, bytes]:
    return {row.key: row.value for row in await store.list("") if row.key != FILLED_FROM}


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while True:
            try:
                if await holds():
                    return
            except Retryable:
                pass
            await asyncio.sleep(0.1)


async def becomes(remote: Remote, wanted: dict[str, bytes]) -> None:
    async def same() -> bool:
        return await rows(remote) == wanted

    try:
        await until(same)
    except TimeoutError:
        assert await rows(remote) == wanted


@Kinds
async def test_what_is_written_while_the_server_is_away_is_there_once_it_is_back(
    kind: str, own_server: OwnServer, tmp_path: Path, client: Connect, node: str
) -> None:
    server = own_server(kind)
    remote = await client(server.url)
    async with both(tmp_path, server, node) as store:
        await store.batch([Put("a", b"1"), Put("b", b"1")])
        await becomes(remote, {"a": b"1", "b": b"1"})
        server.kill()
        async with asyncio.timeout(2):  # nobody waits for a server
            await store.put("a", b"2")
            await store.put("a", b"3")
            await store.delete("b")
            await store.put("c", b"1")
        assert await rows(store) == {"a": b"3", "c": b"1"}
        server.start()
        await becomes(remote, {"a": b"3", "c": b"1"})
        assert await remote.alive() is not None


@Kinds
async def test_a_start_while_the_server_is_away_has_everything_and_tells_it_later(
    kind: str, own_server: OwnServer, tmp_path: Path, client: Connect, node: str
) -> None:
    server = own_server(kind)
    remote = await client(server.url)
    async with both(tmp_path, server, node) as store:
        await store.put("a", b"1")
        await becomes(remote, {"a": b"1"})
    server.kill()
    async with both(tmp_path, server, node) as store:
        assert await rows(store) == {"a": b"1"}
        await store.put("b", b"2")
    async with both(tmp_path, server, node) as store:
        server.start()
        await becomes(remote, {"a": b"1", "b": b"2"})


@Kinds
async def test_a_new_disk_gets_its_record_from_the_server_before_anything_runs(
    kind: str, shared_servers: OwnServer, tmp_path: Path, client: Connect, node: str
) -> None:
    server = shared_servers(kind)
    async with both(tmp_path / "old", server, node) as store:
        await store.batch([Put("pods/a", b"1"), Put("pods/b", b"1")])
        await becomes(await client(server.url), {"pods/a": b"1", "pods/b": b"1"})
    async with both(tmp_path / "new", server, node) as store:
        assert await rows(store) == {"pods/a": b"1", "pods/b": b"1"}
        await store.put("pods/a", b"2")
        await becomes(await client(server.url), {"pods/a": b"2", "pods/b": b"1"})


@Kinds
async def test_what_a_new_disk_wrote_before_the_first_contact_wins(
    kind: str, own_server: OwnServer, tmp_path: Path, client: Connect, node: str
) -> None:
    server = own_server(kind)
    async with both(tmp_path / "old", server, node) as store:
        for _ in range(5):
            await store.batch([Put("pods/a", b"old"), Put("pods/gone", b"old")])
        await becomes(await client(server.url), {"pods/a": b"old", "pods/gone": b"old"})
    server.kill()
    async with both(tmp_path / "new", server, node) as store:
        await store.put("pods/a", b"new")
        await store.delete("pods/gone")
        server.start()
        await becomes(await client(server.url), {"pods/a": b"new"})
        assert await rows(store) == {"pods/a": b"new"}


@Kinds
async def test_a_server_that_lost_its_data_is_filled_again(
    kind: str, own_server: OwnServer, tmp_path: Path, client: Connect, node: str
) -> None:
    server, empty = own_server(kind), own_server(kind)
    async with both(tmp_path, server, node) as store:
        await store.batch([Put("a", b"1"), Put("b", b"1")])
        await becomes(await client(server.url), {"a": b"1", "b": b"1"})
    async with both(tmp_path, empty, node) as store:
        await becomes(await client(empty.url), {"a": b"1", "b": b"1"})
        assert await rows(store) == {"a": b"1", "b": b"1"}


@Kinds
async def test_a_server_that_went_back_in_time_is_brought_up_to_date(
    kind: str, shared_servers: OwnServer, tmp_path: Path, client: Connect, node: str
) -> None:
    server = shared_servers(kind)
    remote = await client(server.url)
    async with both(tmp_path, server, node) as store:
        await store.batch([Put("a", b"1"), Put("b", b"1")])
        await becomes(remote, {"a": b"1", "b": b"1"})
        earlier = await remote.get(FILLED_FROM)
        await store.put("a", b"2")
        await store.delete("b")
        await becomes(remote, {"a": b"2"})
    assert earlier is not None
    await remote.batch([Put("a", b"1"), Put("b", b"1"), Put(FILLED_FROM, earlier.value)])
    async with both(tmp_path, server, node) as store:
        await becomes(remote, {"a": b"2"})
        assert await rows(store) == {"a": b"2"}


async def test_a_row_that_etcd_can_not_take_holds_nothing_else_up(
    shared_servers: OwnServer, tmp_path: Path, client: Connect, node: str
) -> None:
    server = shared_servers("etcd")
    async with both(tmp_path, server, node) as store:
        await store.batch([Put("a", b"1"), Put("large", b"x" * 3_000_000), Put("z", b"1")])
        await becomes(await client(server.url), {"a": b"1", "z": b"1"})
        large = await store.get("large")
        assert isinstance(large, Row)
