"""Strangers at the real server: who is not known gets nothing, learns nothing and holds nothing up."""

import asyncio
import socket
import ssl
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from loguru import logger
from msgspec.structs import replace

from agent.config import Settings
from agent.server import connections
from tests.unit.server.authority import Authority, client_context
from tests.unit.server.cluster import Cluster
from tests.unit.server.serving import Served, Silent, served

GET = b"GET /pods HTTP/1.1\r\nHost: node\r\n"


def tells_nothing(answer: bytes) -> bool:
    words = (b"aiohttp", b"Python", b"Traceback", b'File "', b"0x")
    return not any(word.lower() in answer.lower() for word in words)


@pytest.mark.parametrize(
    "request_bytes",
    [
        GET + b"\r\n",
        GET + b"Authorization: Bearer x\r\n\r\n",
        GET + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
        GET + b"".join(b"X-%d: a\r\n" % number for number in range(1000)) + b"\r\n",
        b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\nHost: node\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /pods HTTP/9.9\r\n\r\n",
        GET + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        GET + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n12345",
        GET + b"Bad\x00Header: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://other/pods HTTP/1.1\r\nHost: other\r\n\r\n",
        b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: node\r\n\r\n",
        b"POST /pods HTTP/1.1\r\nHost: node\r\nExpect: 999-nothing\r\n\r\n",
    ],
)
async def test_a_refusal_says_nothing_about_the_server(
    settings: Settings, authority: Authority, request_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_S", 0.3)
    lines: list[str] = []
    sink = logger.add(lines.append, level="INFO", format="{message}")
    try:
        async with served(settings, Silent(), authority.pem, None, Cluster()) as api:
            answer = await api.send(request_bytes)
    finally:
        logger.remove(sink)
    assert answer.split(b" ")[1] in (b"400", b"401", b"417"), answer
    assert [line for line in lines if "kubelet API on port" not in line] == []


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_tls_is_not_spoken(
    settings: Settings, authority: Authority, admin: Path, version: ssl.TLSVersion
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context = client_context(admin)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
    async with served(settings, Silent(), authority.pem, admin) as api:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", api.port, ssl=context)
        _, writer = await asyncio.open_connection("127.0.0.1", api.port, ssl=client_context(admin))
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        writer.transport.abort()


async def closed_within(seconds: float, reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(seconds):
        with suppress(ConnectionError):
            while await reader.read(65536):
                pass


async def test_a_head_that_never_ends_is_not_waited_for(
    settings: Settings, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_S", 0.3)
    async with served(settings, Silent(), authority.pem, None) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port, ssl=client_context(None))
        writer.write(GET)

        async def drip() -> None:
            while True:
                writer.write(b"X: y\r\n")
                await asyncio.sleep(0.05)

        dripping = asyncio.ensure_future(drip())
        try:
            await closed_within(3, reader)
        finally:
            dripping.cancel()
            writer.transport.abort()


async def test_a_handshake_that_never_comes_is_not_waited_for(
    settings: Settings, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_S", 0.2)
    async with served(settings, Silent(), authority.pem, None) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        await closed_within(3, reader)
        writer.transport.abort()


async def open_many(api: Served, count: int, context: ssl.SSLContext | None) -> list[socket.socket]:
    """Silent connections, made one after the other."""
    made = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", api.port))
        if context is not None:
            sock = await asyncio.to_thread(context.wrap_socket, sock)
        made.append(sock)
        await asyncio.sleep(0)
    return made


@pytest.mark.parametrize("encrypted", [True, False], ids=["after a handshake", "before one"])
async def test_idle_connections_neither_pile_up_nor_keep_others_out(
    settings: Settings, authority: Authority, admin: Path, monkeypatch: pytest.MonkeyPatch, encrypted: bool
) -> None:
    monkeypatch.setattr(connections, "LIMIT", 16)
    async with served(settings, Silent(), authority.pem, admin) as api:
        made = await open_many(api, 50, client_context(None) if encrypted else None)
        try:
            assert (await api.get("/healthz"))[0] == 200
            still_open = 0
            for sock in made:
                sock.settimeout(0.01)
                try:
                    still_open += bool(await asyncio.to_thread(sock.recv, 1))
                except TimeoutError:
                    still_open += 1
                except OSError:
                    pass
            assert 0 < still_open <= 16
        finally:
            for sock in made:
                sock.close()


async def test_a_request_under_way_is_not_ended_for_the_sake_of_strangers(
    settings: Settings, authority: Authority, admin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LIMIT", 4)
    go_on = asyncio.Event()

    class Slow(Silent):
        async def get_pod(self, namespace: str, name: str):  # type: ignore[no-untyped-def]
            await go_on.wait()
            return await super().get_pod(namespace, name)

        async def checkpoint_container(self, namespace: str, pod: str, container: str, timeout_s: int) -> str:
            return "/archive.tar"

    async with served(settings, Slow(), authority.pem, admin) as api:
        asking = asyncio.ensure_future(api.get("/checkpoint/shop/web/main", "POST"))
        await asyncio.sleep(0.05)
        made = await open_many(api, 20, client_context(None))
        go_on.set()
        assert await asking == (200, '{"items": ["/archive.tar"]}')
        for sock in made:
            sock.close()


async def test_a_port_that_only_shows_needs_no_credential_and_shows_no_more(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = replace(settings, address="127.0.0.1", read_only_port=port)
    async with served(settings, Silent(), authority.pem, admin) as api:
        assert (await api.get("/healthz"))[0] == 200  # both ports are open now
        url = f"http://127.0.0.1:{port}"
        for path, status in (("/healthz", 200), ("/pods", 200), ("/stats/summary", 501), ("/configz", 404)):
            async with api.session.get(url + path) as response:
                assert response.status == status, path
        for path in ("/run/shop/web/main?cmd=id", "/exec/shop/web/main?command=id", "/checkpoint/shop/web/main"):
            async with api.session.post(url + path) as response:
                assert response.status == 404, path
