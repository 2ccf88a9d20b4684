"""What only a record on a server can meet: a server that dies and comes back, passwords, other nodes, a lost stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import ConfigError, Gone, Permanent, Retryable
from agent.store.address import parse
from agent.store.base import Put
from agent.store.remote import connect
from hack.processes import Daemon, free_port
from hack.store_servers import MAKERS, PASSWORD, Server, redis_program
from tests.integration.store.conftest import Connect

EVERY = pytest.mark.parametrize("kind", list(MAKERS))
SECURE = pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind.endswith("secure")])

OwnServer = Callable[[str], Server]


@EVERY
async def test_a_server_that_was_killed_has_everything_when_it_is_back(
    kind: str, own_server: OwnServer, client: Connect
) -> None:
    server = own_server(kind)
    store = await client(server.url)
    await store.batch([Put("a", b"1"), Put("b", b"2")])
    async with store.watch("") as changes:
        server.kill()
        async with asyncio.timeout(20):
            with pytest.raises((Retryable, Gone)):
                await anext(changes)
    async with asyncio.timeout(20):
        with pytest.raises(Retryable, match=r"does not answer|refused"):
            await store.put("c", b"3")
    server.start()
    async with asyncio.timeout(20):
        while True:
            try:
                await store.put("c", b"3")
                break
            except Retryable:
                await asyncio.sleep(0.2)
    assert [(row.key, row.value) for row in await store.list("")] == [("a", b"1"), ("b", b"2"), ("c", b"3")]
    async with store.watch("") as changes:
        await store.put("d", b"4")
        assert (await anext(changes)).key == "d"


@SECURE
async def test_a_wrong_password_is_said_and_not_shown(
    kind: str, shared_servers: OwnServer, client: Connect, tmp_path: Path
) -> None:
    server = shared_servers(kind)
    (tmp_path / "wrong").write_text("very-wrong-password")
    store = await client(server.url.replace(str(server.password_file), str(tmp_path / "wrong")))
    with pytest.raises(Retryable) as caught:
        await store.get("a")
    assert "very-wrong-password" not in str(caught.value)
    assert f"127.0.0.1:{server.port}" in str(caught.value)


@SECURE
async def test_a_password_comes_from_the_environment_too(kind: str, shared_servers: OwnServer, node: str) -> None:
    server = shared_servers(kind)
    address = parse(server.url.replace(f"&password-file={server.password_file}", ""))
    store = await connect(address, node, {"EDGELET_STORE_PASSWORD": PASSWORD})
    await store.put("a", b"1")
    await store.close()
    assert PASSWORD not in f"{address} {address!r}"


@SECURE
async def test_a_server_that_another_authority_signed_is_not_trusted(
    kind: str, own_server: OwnServer, shared_servers: OwnServer, client: Connect
) -> None:
    stranger, server = own_server(kind), shared_servers(kind)
    store = await client(server.url.replace(f"{server.folder}/ca.crt", f"{stranger.folder}/ca.crt"))
    with pytest.raises(Retryable, match="does not answer"):
        await store.put("a", b"1")


async def test_a_node_without_a_password_is_refused_by_a_server_that_wants_one(
    shared_servers: OwnServer, client: Connect
) -> None:
    server = shared_servers("redis-secure")
    store = await client(f"rediss://127.0.0.1:{server.port}?ca={server.folder}/ca.crt")
    with pytest.raises(Retryable):
        await store.put("a", b"1")


@EVERY
async def test_the_word_that_a_node_lives_ends_with_it(kind: str, shared_servers: OwnServer, client: Connect) -> None:
    url = shared_servers(kind).url
    store, reader = await client(url), await client(url)
    assert await store.take(b"here", 2, over=None)
    assert await store.take(b"here", 2, over=b"here")
    assert await reader.alive() == b"here"
    async with asyncio.timeout(15):
        while await reader.alive() is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


@EVERY
async def test_rows_are_taken_from_whose_word_stands_and_from_nobody_else(
    kind: str, shared_servers: OwnServer, client: Connect
) -> None:
    url = shared_servers(kind).url
    first, second = await client(url), await client(url)
    assert await first.take(b"first", 30, over=None)
    assert not await second.take(b"second", 30, over=None)
    await first.put("a", b"1")
    assert await second.take(b"second", 30, over=b"first")
    with pytest.raises(Retryable, match="no longer has this agent's word"):
        await first.put("a", b"2")
    assert not await first.take(b"first", 30, over=b"first")
    await second.put("a", b"3")
    await first.close()
    assert await second.alive() == b"second"
    reader = await client(url)
    await second.close()
    assert await reader.alive() is None
    assert [row.value for row in await reader.list("")] == [b"3"]


async def test_a_watcher_that_redis_has_no_changes_for_any_more_is_told(
    shared_servers: OwnServer, client: Connect
) -> None:
    url = shared_servers("redis").url
    store = await client(url)
    async with store.watch("") as changes:
        for _ in range(60):
            await store.batch([Put(f"k/{number}", b"x") for number in range(50)])
        with pytest.raises(Gone):
            async for _ in changes:
                pass


async def test_a_batch_that_etcd_does_not_take_is_refused_whole(shared_servers: OwnServer, client: Connect) -> None:
    store = await client(shared_servers("etcd").url)
    with pytest.raises(Permanent):
        await store.batch([Put(f"k/{number}", b"x") for number in range(200)])
    assert await store.list("") == ()


async def test_of_several_etcd_endpoints_one_that_answers_is_found(shared_servers: OwnServer, client: Connect) -> None:
    store = await client(f"etcd://127.0.0.1:{free_port()},127.0.0.1:{shared_servers('etcd').port}")
    await store.put("a", b"1")
    assert len(await store.list("")) == 1


async def test_sentinel_knows_where_the_service_is(tmp_path: Path, shared_servers: OwnServer, client: Connect) -> None:
    redis = shared_servers("redis")
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor edge-store 127.0.0.1 {redis.port} 1\n")
    sentinel = Daemon("sentinel", [redis_program(tmp_path, "redis-sentinel"), config], tmp_path)
    sentinel.start()
    try:
        store = await client(f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{port}/edge-store")
        async with asyncio.timeout(15):
            while True:
                try:
                    await store.put("a", b"1")
                    break
                except Retryable:
                    await asyncio.sleep(0.2)
        assert len(await store.list("")) == 1
    finally:
        sentinel.stop()


async def test_a_file_that_is_not_there_is_a_config_error(node: str) -> None:
    with pytest.raises(ConfigError, match="/nowhere"):
        await connect(parse("etcds://127.0.0.1:1?ca=/nowhere"), node, {})
    with pytest.raises(ConfigError, match="/nowhere"):
        await connect(parse("redis://127.0.0.1:1?password-file=/nowhere"), node, {})
