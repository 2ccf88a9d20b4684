"""Sinks against servers on loopback, and a real file."""

from __future__ import annotations

import asyncio
import base64
import gzip
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from agent.errors import Permanent, Retryable
from agent.pods.log_shipping import sinks
from agent.pods.log_shipping.message import LOST_STREAM, LogLine, as_datagram, as_syslog
from agent.pods.log_shipping.sinks import carrier, retry_after
from agent.policies.log_sink import parse_log_sink
from agent.server.self_signed import self_signed
from tests.fakes.waiting import eventually

LINE = LogLine("2026-03-01T12:00:00.123456789+01:00", "stdout", "hé", "default", "talks", "1-2", "main", "edge")


class Http:
    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[web.Response] = []
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append((dict(request.headers), await request.read()))
        return self.answers.pop(0) if self.answers else web.Response(status=204)


@asynccontextmanager
async def http() -> AsyncIterator[Http]:
    served = Http()
    app = web.Application()
    app.router.add_post("/in", served.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.port = runner.addresses[0][1]
    yield served
    await runner.cleanup()


async def test_http_gets_json_lines_with_the_login_and_compressed_where_asked_for() -> None:
    async with http() as server:
        made = carrier(parse_log_sink(f"http://me:pw@127.0.0.1:{server.port}/in?x=1#gzip"))
        await made.send([made.encode(LINE), made.encode(LINE)])
        await made.close()
    (headers, body), *_ = server.requests
    assert headers["Content-Type"] == "application/x-ndjson"
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"me:pw").decode()
    # The server has taken the compression off already.
    assert headers["Content-Encoding"] == "gzip"
    text = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
    assert [msgspec.json.decode(line, type=LogLine) for line in text.splitlines()] == [LINE, LINE]
    assert sorted(msgspec.json.decode(text.splitlines()[0])) == sorted(
        ("time", "stream", "log", "namespace", "pod", "uid", "container", "node")
    )


async def test_http_says_who_is_overloaded_and_who_refuses() -> None:
    async with http() as server:
        made = carrier(parse_log_sink(f"http://127.0.0.1:{server.port}/in"))
        server.answers = [
            web.Response(status=429, headers={"Retry-After": "7"}),
            web.Response(status=503),
            web.Response(status=408),
            web.Response(status=401),
            web.Response(status=302, headers={"Location": "http://elsewhere/"}),
        ]
        with pytest.raises(Retryable) as wished:
            await made.send([b"{}\n"])
        assert wished.value.after == 7
        for _ in range(2):
            with pytest.raises(Retryable) as away:
                await made.send([b"{}\n"])
            assert away.value.after is None
        for status in (401, 302):
            with pytest.raises(Permanent, match=str(status)):
                await made.send([b"{}\n"])
        await made.send([b"{}\n"])
        await made.close()


def test_retry_after_is_seconds_or_a_date_or_nothing() -> None:
    assert retry_after({"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT"}, now=lambda: 50.0) == 10
    assert retry_after({"Retry-After": "soon"}) is None
    assert retry_after({}) is None


async def test_nobody_there_is_away() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        for text in (f"http://127.0.0.1:{port}/", f"syslog+tcp://127.0.0.1:{port}", f"syslog+tls://127.0.0.1:{port}"):
            made = carrier(parse_log_sink(text))
            with pytest.raises(Retryable):
                await made.send([made.encode(LINE)])
            await made.close()


def test_a_syslog_message_is_rfc_5424() -> None:
    assert as_syslog(LINE).decode() == (
        "<30>1 2026-03-01T12:00:00.123456+01:00 edge main talks - [edgelet@32473 "
        'namespace="default" pod="talks" uid="1-2" container="main" stream="stdout"] hé'
    )
    assert as_syslog(msgspec.structs.replace(LINE, stream="stderr")).startswith(b"<27>1 ")
    said = as_syslog(msgspec.structs.replace(LINE, stream=LOST_STREAM, time=""))
    assert re.match(rb"<28>1 \d{4}-\d\d-\d\dT", said)
    long = as_syslog(msgspec.structs.replace(LINE, container="c" * 63, pod="p" * 200))
    assert long.split()[3:5] == [b"c" * 48, b"p" * 128]
    assert len(as_datagram(msgspec.structs.replace(LINE, log="x" * 10**5))) == 8192


async def test_tcp_counts_octets_and_notices_a_connection_that_breaks_after_the_lines_went() -> None:
    got = bytearray()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while block := await reader.read(4096):
            got.extend(block)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made = carrier(parse_log_sink(f"syslog+tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    message = as_syslog(LINE)
    await made.send([made.encode(LINE)] * 2)
    await eventually(lambda: bytes(got) == (b"%d " % len(message) + message) * 2)
    assert made.is_well()
    writers[0].transport.abort()
    await eventually(lambda: not made.is_well())
    await made.send([made.encode(LINE)])
    await eventually(lambda: len(writers) == 2)
    assert made.is_well()
    await made.close()
    server.close()


async def test_tls_counts_octets_too_and_takes_only_a_certificate_that_the_machine_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = tmp_path / "server.pem"
    pem.write_bytes(self_signed("logs", ["127.0.0.1"], time.time()))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    got = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(65536):
            got.extend(block)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    made = carrier(parse_log_sink(f"syslog+tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    with pytest.raises(Retryable, match="certificate"):
        await made.send([made.encode(LINE)])
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    message = made.encode(LINE)
    await made.send([message] * 20_000)
    await eventually(lambda: bytes(got) == message * 20_000)
    assert made.is_well()
    await made.close()
    server.close()


async def test_tcp_that_takes_nothing_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "CALL_S", 0.2)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        made = carrier(parse_log_sink(f"syslog+tcp://127.0.0.1:{listening.getsockname()[1]}"))
        with pytest.raises(Retryable, match="no answer in time"):
            await made.send([b"x" * 10**7])
        await made.close()


async def test_udp_sends_each_line_as_a_datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        made = carrier(parse_log_sink(f"syslog://127.0.0.1:{server.getsockname()[1]}"))
        await made.send([made.encode(LINE)] * 2)
        assert [server.recv(9000) for _ in range(2)] == [as_syslog(LINE)] * 2
        await made.close()


async def test_a_file_is_appended_to_and_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "FILE_BYTES", 4)
    path = tmp_path / "all.log"
    made = carrier(parse_log_sink(f"file://{path}"))
    for text in (b"a\n", b"b\n", b"c\n"):
        await made.send([text])
    assert path.read_bytes() == b"c\n"
    assert path.with_name("all.log.1").read_bytes() == b"a\nb\n"
    for _ in range(20):
        await made.send([b"1234\n"])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["all.log", *(f"all.log.{n}" for n in range(1, 5))]
    assert path.stat().st_mode & 0o777 == 0o640


async def test_a_file_that_is_none_is_said_and_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name in ("link", "none/all.log", "."):
        with pytest.raises(Retryable):
            await sinks.FileSink(tmp_path / name).send([b"a\n"])
    assert not (tmp_path / "target").exists()
