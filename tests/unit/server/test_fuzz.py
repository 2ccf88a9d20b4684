"""Any bytes at the real server, from one who may do everything: no 500, no traceback, no task that stays.

The server has a thread and a loop of its own for all examples; the client is a plain socket with TLS.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loguru import logger
from msgspec.structs import replace

from agent.config import Settings
from agent.model.logs import LogOptions
from agent.providers.streaming import AttachIO, ByteStream
from agent.server import host_logs, spdy, spdy_session
from tests.unit.server.authority import Authority, client_context
from tests.unit.server.cluster import Cluster
from tests.unit.server.serving import Served, Silent, served

ANSWER_S = 0.15
"""For an answer to begin; many requests are cut off and have none."""
UPGRADE_S = 10.0
SETTLE_S = 60.0
"""Patience with a busy machine, not a time that anything needs."""
EXAMPLES = 60


class Everything(Silent):
    """Has every part of the contract, so that no request ends at a 501."""

    async def get_container_logs(
        self, namespace: str, pod: str, container: str, options: LogOptions
    ) -> AsyncIterator[bytes]:
        yield b"one\n"

    async def run_in_container(
        self, namespace: str, pod: str, container: str, command: Sequence[str], io: AttachIO
    ) -> int:
        if io.stdin is not None:
            while block := await io.stdin.read():
                if io.stdout is not None:
                    await io.stdout.write(block)
        return 0

    async def attach_to_container(self, namespace: str, pod: str, container: str, io: AttachIO) -> int:
        async for _ in io.resizes():
            pass
        return 0

    async def port_forward(self, namespace: str, pod: str, port: int, connection: ByteStream) -> None:
        while block := await connection.read():
            await connection.write(block)

    async def get_stats_summary(self) -> dict[str, object]:
        return {}

    async def get_metrics_resource(self) -> str:
        return ""

    async def checkpoint_container(self, namespace: str, pod: str, container: str, timeout_s: int) -> str:
        return "/archive.tar"


@dataclass
class Target:
    """The server in its thread."""

    settings: Settings
    ca: bytes
    client: ssl.SSLContext
    port: int = 0
    log: list[str] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop | None = None
    ready: threading.Event = field(default_factory=threading.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, certificate: Path) -> None:
        async with served(self.settings, Everything(), self.ca, certificate, Cluster()) as api:
            await self._until_over(api)

    async def _until_over(self, api: Served) -> None:
        assert (await api.get("/healthz"))[0] == 200
        self.port, self.loop = api.port, asyncio.get_running_loop()
        self.ready.set()
        await self.over.wait()

    def tasks(self) -> list[str]:
        async def names() -> list[str]:
            return [str(task) for task in asyncio.all_tasks()]

        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(names(), self.loop).result(30)

    def say(self, sent: bytes) -> bytes:
        """What comes back at first."""
        with socket.create_connection(("127.0.0.1", self.port)) as plain, self.client.wrap_socket(plain) as sock:
            sock.settimeout(ANSWER_S)
            with suppress(OSError):
                sock.sendall(sent)
                return sock.recv(65536)
            return b""

    def upgrade(self, head: str, sent: bytes) -> bytes:
        """The answer to the upgrade, after which the bytes are sent."""
        with socket.create_connection(("127.0.0.1", self.port)) as plain, self.client.wrap_socket(plain) as sock:
            sock.settimeout(UPGRADE_S)
            sock.sendall(head.encode())
            answer = sock.recv(65536)
            sock.settimeout(ANSWER_S)
            with suppress(OSError):
                sock.sendall(sent)
                sock.recv(65536)
            return answer


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("fuzz")
    authority = Authority()
    admin = authority.issue(folder / "admin.pem", "admin", "system:masters")
    (folder / "log").mkdir()
    (folder / "log" / "syslog").write_text("line\n")
    own = replace(
        Settings(node_name="n1", root_dir=folder / "root"),
        enable_system_log_handler=True,
    )
    patch = pytest.MonkeyPatch()
    patch.setattr(host_logs.HostLogs.__init__, "__defaults__", (folder / "log",))
    patch.setattr(spdy_session, "HUNG_UP_CHECK_S", 0.05)
    made = Target(own, authority.pem, client_context(admin))
    sink = logger.add(lambda line: made.log.append(str(line)), level="ERROR")
    thread = threading.Thread(target=lambda: asyncio.run(made.serve(admin)))
    thread.start()
    assert made.ready.wait(10)
    at_rest = len(made.tasks())
    yield made
    deadline = time.monotonic() + SETTLE_S
    while len(left := made.tasks()) > at_rest and time.monotonic() < deadline:
        time.sleep(0.05)
    assert made.loop is not None
    made.loop.call_soon_threadsafe(made.over.set)
    thread.join(10)
    logger.remove(sink)
    patch.undo()
    assert not thread.is_alive()
    assert len(left) <= at_rest, f"tasks of ended requests stay: {left}"


quick = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

ANY_TEXT = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0 "), max_size=10)
ROUTES = [
    "exec",
    "attach",
    "run",
    "portForward",
    "containerLogs",
    "pods",
    "runningpods",
    "stats",
    "summary",
    "metrics",
    "resource",
    "healthz",
    "ping",
    "configz",
    "logs",
    "syslog",
    "checkpoint",
    "shop",
    "web",
    "main",
    "u1",
    ".",
    "..",
    "%2e%2e",
    "%2f",
    "%00",
    "%ff",
    "%",
    "*",
]
PARAMETERS = [
    "command",
    "cmd",
    "input",
    "output",
    "error",
    "stdin",
    "stdout",
    "stderr",
    "tty",
    "port",
    "ports",
    "follow",
    "tailLines",
    "tail",
    "limitBytes",
    "sinceTime",
    "sinceSeconds",
    "timestamps",
    "previous",
    "stream",
    "timeout",
    "verbose",
    "exclude",
    "container",
]
VALUES = ["1", "0", "true", "-1", "all", "99999999999999999999", "2026-01-01T00:00:00Z", "²", "id", "%"]
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "FOO"]
PLACES = [
    "/exec/shop/web/main",
    "/attach/shop/web/main",
    "/portForward/shop/web",
    "/run/shop/web/main",
    "/containerLogs/shop/web/main",
    "/checkpoint/shop/web/main",
    "/logs/syslog",
    "/exec/shop/web/u1/main",
]
SESSIONS = [
    "/exec/shop/web/main?command=id&input=1&output=1&error=1",
    "/attach/shop/web/main?input=1&output=1&tty=1",
    "/portForward/shop/web",
]
HEADERS = [
    "Connection",
    "Upgrade",
    "X-Stream-Protocol-Version",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Content-Length",
    "Transfer-Encoding",
    "Content-Encoding",
    "Authorization",
    "Expect",
    "Range",
    "Accept",
    "Content-Type",
    "If-None-Match",
    "Cookie",
]
HEADER_VALUES = [
    "upgrade",
    "upgrade,close",
    "SPDY/3.1",
    "websocket",
    "v4.channel.k8s.io",
    "v5.channel.k8s.io",
    "portforward.k8s.io",
    "13",
    "5",
    "dGhlIHNhbXBsZSBub25jZQ==",
    "chunked",
    "gzip,chunked",
    "100-continue",
    "gzip",
    "Bearer",
    "base64url.bearer.authorization.k8s.io.eA",
    "keep-alive",
]

words = st.one_of(st.sampled_from([*ROUTES, "", "a" * 300]), ANY_TEXT)
made_up = st.lists(words, max_size=6).map(lambda parts: "/" + "/".join(parts))
paths = st.one_of(made_up, st.sampled_from(PLACES))
values = st.one_of(st.sampled_from(VALUES), ANY_TEXT)
queries = st.lists(st.tuples(st.sampled_from(PARAMETERS), values), max_size=5)
header_names = st.one_of(st.sampled_from(HEADERS).map(str.encode), st.binary(max_size=10))
header_values = st.one_of(st.sampled_from(HEADER_VALUES).map(str.encode), st.binary(max_size=40))


def check(target: Target, answer: bytes) -> None:
    assert not answer or answer.startswith(b"HTTP/1."), answer
    assert not answer.startswith((b"HTTP/1.1 500", b"HTTP/1.0 500")), answer
    assert b"Traceback" not in answer
    assert target.log == []


@quick
@given(method=st.sampled_from(METHODS), path=paths, query=queries)
def test_any_route_has_an_answer(target: Target, method: str, path: str, query: list[tuple[str, str]]) -> None:
    asked = f"{method} {path}?{'&'.join(f'{name}={value}' for name, value in query)} HTTP/1.1\r\nHost: node\r\n\r\n"
    check(target, target.say(asked.encode("latin-1")))


@quick
@given(
    method=st.sampled_from(["GET", "POST"]),
    path=paths,
    headers=st.lists(st.tuples(header_names, header_values), max_size=8),
    body=st.binary(max_size=64),
)
def test_any_headers_have_an_answer_or_an_end(
    target: Target, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    asked = f"{method} {path}?command=id&stdout=1 HTTP/1.1\r\nHost: node\r\n".encode("latin-1")
    check(target, target.say(asked + lines + b"\r\n" + body))


KINDS = ["error", "stdin", "stdout", "stderr", "resize", "data", "none"]
headers_of_streams = st.dictionaries(
    st.sampled_from(["streamtype", "port", "requestid"]), st.sampled_from([*KINDS, "80"])
)
frames: st.SearchStrategy[spdy.Frame | bytes] = st.one_of(
    st.builds(spdy.SynStream, st.integers(0, 20), headers_of_streams),
    st.builds(spdy.SynStream, st.integers(0, 20), headers_of_streams),
    st.builds(spdy.Data, st.integers(0, 20), st.binary(max_size=100), st.booleans()),
    st.builds(spdy.RstStream, st.integers(0, 20), st.integers(0, 9)),
    st.builds(spdy.Ping, st.integers(0, 20)),
    st.builds(spdy.GoAway, st.integers(0, 20)),
    st.binary(max_size=40),
)


def spdy_bytes(parts: list[spdy.Frame | bytes]) -> bytes:
    encoder = spdy.Encoder()
    return b"".join(part if isinstance(part, bytes) else encoder.encode(part) for part in parts)


@quick
@given(path=st.sampled_from(SESSIONS), sent=st.lists(frames, max_size=12).map(spdy_bytes))
def test_any_bytes_after_an_upgrade_to_spdy_end_the_session_at_most(target: Target, path: str, sent: bytes) -> None:
    protocol = "portforward.k8s.io" if "portForward" in path else "v4.channel.k8s.io"
    head = f"POST {path} HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    head += f"X-Stream-Protocol-Version: {protocol}\r\n\r\n"
    answer = target.upgrade(head, sent)
    assert answer.startswith(b"HTTP/1.1 101")
    check(target, answer)


def masked(message: tuple[int, bytes]) -> bytes:
    """A WebSocket frame of a client; a mask of zeros leaves the bytes as they are."""
    opcode, payload = message
    return bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload


MESSAGES = [(2, b"\0hello"), (2, b"\xff\0"), (2, b'\x04{"Width":1,"Height":2}'), (8, b"")]
messages = st.one_of(
    st.tuples(st.integers(0, 15), st.binary(max_size=60)).map(masked),
    st.sampled_from(MESSAGES).map(masked),
    st.binary(max_size=40),
)


@quick
@given(
    version=st.sampled_from(["v5.channel.k8s.io", "v4.channel.k8s.io"]),
    sent=st.lists(messages, max_size=10).map(b"".join),
)
def test_any_bytes_after_an_upgrade_to_a_websocket_end_the_session_at_most(
    target: Target, version: str, sent: bytes
) -> None:
    head = "GET /exec/shop/web/main?command=id&input=1&output=1&error=1 HTTP/1.1\r\nHost: node\r\n"
    head += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    head += f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {version}\r\n\r\n"
    answer = target.upgrade(head, sent)
    assert answer.startswith(b"HTTP/1.1 101")
    check(target, answer)


@quick
@given(sent=st.binary(max_size=200))
def test_any_bytes_at_all_have_a_refusal_or_an_end(target: Target, sent: bytes) -> None:
    check(target, target.say(sent + b"\r\n\r\n"))
