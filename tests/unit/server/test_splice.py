import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.config import Settings
from agent.errors import Permanent, Retryable
from agent.providers.streaming import CommandOutput, Streams
from tests.fakes.waiting import PATIENCE_S
from tests.unit.server.authority import Authority
from tests.unit.server.serving import Silent, served
from tests.unit.server.upgraded import SPDY_EXEC, SPDY_FORWARD, upgrade

EXEC = "/exec/shop/web/main?command=sh&command=-c&command=exit+3&input=1&output=1&error=1"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"

Session = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class ByUrl(Silent):
    """Its streaming server is at `url`; an exception in its place is raised."""

    def __init__(self, url: str | Exception) -> None:
        self.url = url
        self.asked: list[object] = []

    async def exec_url(self, namespace: str, pod: str, container: str, command: Sequence[str], streams: Streams) -> str:
        return self._answer(namespace, pod, container, list(command), streams)

    async def attach_url(self, namespace: str, pod: str, container: str, streams: Streams) -> str:
        return self._answer(namespace, pod, container, streams)

    async def port_forward_url(self, namespace: str, pod: str, ports: Sequence[int]) -> str:
        return self._answer(namespace, pod, list(ports))

    async def run_to_end(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> CommandOutput:
        return CommandOutput(3 if "false" in command else 0, " ".join(command).encode())

    def _answer(self, *asked: object) -> str:
        self.asked.append(asked)
        if isinstance(self.url, Exception):
            raise self.url
        return self.url


@asynccontextmanager
async def runtime(session: Session) -> AsyncIterator[tuple[str, list[str]]]:
    """A streaming server: the URL, and the heads of the requests that it got."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        try:
            await session(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/exec/token?x=1", heads


async def flood(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 1_000_000)
        await writer.drain()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(SWITCH)
    while block := await reader.read(65536):
        writer.write(block)
        await writer.drain()


async def test_the_upgrade_is_replayed_without_credentials_and_bytes_pass_both_ways(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    async with runtime(echo) as (url, heads):
        provider = ByUrl(url)
        async with served(settings, provider, authority.pem, admin) as api:
            headers = {**SPDY_EXEC, "Authorization": "Bearer secret"}
            async with upgrade(api, admin, EXEC, headers) as answer:
                assert answer.head.encode() == SWITCH
                sent = bytes(range(256)) * 40_000
                answer.writer.write(sent)
                assert await answer.reader.readexactly(len(sent)) == sent
    lines = heads[0].split("\r\n")
    assert lines[0] == "POST /exec/token?x=1 HTTP/1.1"
    assert {"Upgrade: SPDY/3.1", "Connection: Upgrade", "X-Stream-Protocol-Version: v4.channel.k8s.io"} <= set(lines)
    assert "secret" not in heads[0]
    streams = Streams(stdin=True, stdout=True, stderr=True, tty=False)
    assert provider.asked == [("shop", "web", "main", ["sh", "-c", "exit 3"], streams)]


async def test_attach_and_port_forward_and_the_forms_with_a_uid_reach_the_provider(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    async with runtime(echo) as (url, _):
        provider = ByUrl(url)
        async with served(settings, provider, authority.pem, admin) as api:
            for path, method in (
                ("/exec/shop/web/u1/main?command=sh&stdin=true&stdout=true&tty=true", "GET"),
                ("/attach/shop/web/main?output=1&error=1&tty=1", "POST"),
                ("/attach/shop/web/u1/main?output=1", "GET"),
                ("/portForward/shop/web", "POST"),
                ("/portForward/shop/web/u1?port=80&port=81,82", "GET"),
            ):
                async with upgrade(api, admin, path, SPDY_FORWARD, method) as answer:
                    assert answer.status == 101
    assert provider.asked == [
        ("shop", "web", "main", ["sh"], Streams(stdin=True, stdout=True, stderr=False, tty=True)),
        # With a terminal there is no stderr of its own.
        ("shop", "web", "main", Streams(stdin=False, stdout=True, stderr=False, tty=True)),
        ("shop", "web", "main", Streams(stdin=False, stdout=True, stderr=False, tty=False)),
        ("shop", "web", []),
        ("shop", "web", [80, 81, 82]),
    ]


async def test_the_runtimes_last_words_arrive_although_it_has_stopped_reading(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    last_words = b"status" * 1000  # what is on its way when a connection with unread bytes is closed

    async def ends_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        await reader.readexactly(10)
        writer.write(last_words)

    async with (
        runtime(ends_early) as (url, _),
        served(settings, ByUrl(url), authority.pem, admin) as api,
        upgrade(api, admin, EXEC) as answer,
    ):
        answer.writer.write(b"x" * 3_000_000)
        assert await answer.reader.readexactly(len(last_words)) == last_words


async def test_a_client_that_goes_away_ends_the_runtimes_session(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    ended = asyncio.Event()

    async def until_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        await reader.read()
        ended.set()

    async with runtime(until_end) as (url, _), served(settings, ByUrl(url), authority.pem, admin) as api:
        async with upgrade(api, admin, EXEC):
            assert not ended.is_set()
        async with asyncio.timeout(PATIENCE_S):
            await ended.wait()


async def test_a_client_that_goes_away_is_noticed_although_the_runtime_takes_nothing_from_it(
    settings: Settings, authority: Authority, admin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.server.splice.CHECK_S", 0.05)
    held = asyncio.Event()

    async def takes_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(SWITCH)
        await held.wait()

    async with runtime(takes_nothing) as (url, _), served(settings, ByUrl(url), authority.pem, admin) as api:
        async with upgrade(api, admin, EXEC) as answer:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.3):  # it is held up before
                    await flood(answer.writer)
            pump = next(task for task in asyncio.all_tasks() if task.get_name() == "to the runtime")
            reset_at_close = struct.pack("ii", 1, 0)
            answer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_at_close)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([pump])
        held.set()


async def test_an_idle_session_is_ended(
    settings: Settings, authority: Authority, admin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.server.splice.CHECK_S", 0.02)
    settings = replace(settings, streaming_connection_idle_timeout=0.1)
    async with (
        runtime(echo) as (url, _),
        served(settings, ByUrl(url), authority.pem, admin) as api,
        upgrade(api, admin, EXEC) as answer,
    ):
        assert await answer.reader.read() == b""


async def test_the_stop_of_the_agent_does_not_wait_for_sessions(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    async with (
        runtime(echo) as (url, _),
        served(settings, ByUrl(url), authority.pem, admin) as api,
        upgrade(api, admin, EXEC) as answer,
    ):
        api.server.cancel()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([api.server])
        assert await answer.reader.read() == b""


async def test_a_refusal_of_the_streaming_server_is_the_answer(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    async def refuses(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 15\r\n\r\ntoken not found")
        await asyncio.sleep(0)

    async with (
        runtime(refuses) as (url, _),
        served(settings, ByUrl(url), authority.pem, admin) as api,
        upgrade(api, admin, EXEC) as answer,
    ):
        assert (answer.status, await answer.body()) == (404, "token not found")


@pytest.mark.parametrize(
    ("said", "why"), [(b"", "it ended the connection"), (b"SSH-2.0-x\r\n\r\n", "it does not speak HTTP/1.1")]
)
async def test_a_streaming_server_that_makes_no_sense_is_a_503(
    settings: Settings, authority: Authority, admin: Path, said: bytes, why: str
) -> None:
    async def babbles(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    async with (
        runtime(babbles) as (url, _),
        served(settings, ByUrl(url), authority.pem, admin) as api,
        upgrade(api, admin, EXEC) as answer,
    ):
        assert answer.status == 503
        assert (await answer.body()).endswith(f": {why}")


@pytest.mark.parametrize(
    ("url", "status", "text"),
    [
        (Retryable("Exec: the runtime is unavailable"), 503, "Exec: the runtime is unavailable"),
        (Permanent("", 'container "main" in pod "web" is not running'), 400, "is not running"),
        ("http://127.0.0.1:1/x", 503, "the runtime's streaming server at 127.0.0.1:1: "),
        ("https://127.0.0.1:1/x", 400, "the runtime streams at https://, only http:// is served"),
    ],
)
async def test_a_session_that_cannot_begin_is_refused_with_the_reason(
    settings: Settings, authority: Authority, admin: Path, url: str | Exception, status: int, text: str
) -> None:
    async with served(settings, ByUrl(url), authority.pem, admin) as api, upgrade(api, admin, EXEC) as answer:
        assert answer.status == status
        assert text in await answer.body()


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        (EXEC.replace("web", "db"), 404, "pod does not exist"),
        (EXEC.replace("main", "side"), 404, 'container not found ("side")'),
        (EXEC.replace("web/", "web/u2/"), 404, "pod does not exist: its UID is not u2"),
        ("/exec/shop/web/main?command=sh", 400, "at least one of stdin, stdout and stderr must be asked for"),
        ("/exec/shop/web/main?output=1", 400, "no command: give the parameter `command`, once a word"),
        ("/portForward/shop/web?port=0", 400, "port: '0' is not a list of ports from 1 to 65535"),
        ("/portForward/shop/web?port=99999999999999", 400, "port: '99999999999999' is not a list of ports"),
        ("/portForward/shop/db", 404, "pod does not exist"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    settings: Settings, authority: Authority, admin: Path, path: str, status: int, text: str
) -> None:
    provider = ByUrl("")
    async with served(settings, provider, authority.pem, admin) as api, upgrade(api, admin, path) as answer:
        assert answer.status == status
        assert text in await answer.body()
    assert provider.asked == []


async def test_a_request_that_is_no_upgrade_is_told_so(settings: Settings, authority: Authority, admin: Path) -> None:
    async with served(settings, ByUrl(""), authority.pem, admin) as api:
        assert await api.get(EXEC) == (400, "Upgrade request required")


async def test_nobody_execs_without_a_certificate(settings: Settings, authority: Authority, tmp_path: Path) -> None:
    node = authority.issue(tmp_path / "node.pem", "system:node:n2", "system:nodes")
    provider = ByUrl("")
    async with served(settings, provider, authority.pem, node) as api, upgrade(api, node, EXEC) as answer:
        assert answer.status == 403
    async with served(settings, provider, authority.pem, None) as api:
        assert (await api.get(EXEC, "POST"))[0] == 401
    assert provider.asked == []


async def test_run_answers_with_the_output(settings: Settings, authority: Authority, admin: Path) -> None:
    async with served(settings, ByUrl(""), authority.pem, admin) as api:
        assert await api.get("/run/shop/web/main?cmd=ls+-l+/", "POST") == (200, "ls -l /")
        assert await api.get("/run/shop/web/u1/main?cmd=ls", "POST") == (200, "ls")
        assert await api.get("/run/shop/web/main?cmd=false", "POST") == (
            500,
            "command 'false' exited with 3: false",
        )
        assert (await api.get("/run/shop/web/main", "POST"))[0] == 400
        assert (await api.get("/run/shop/web/main?cmd=ls"))[0] == 405


@pytest.mark.parametrize(
    ("path", "what"),
    [(EXEC, "exec"), ("/attach/shop/web/main?output=1", "attach"), ("/portForward/shop/web", "port-forward")],
)
async def test_a_provider_that_cannot_is_a_501(
    settings: Settings, authority: Authority, admin: Path, path: str, what: str
) -> None:
    async with served(settings, Silent(), authority.pem, admin) as api:
        async with upgrade(api, admin, path) as answer:
            assert answer.status == 501
            assert await answer.body() == f"{what} is not implemented by this node's provider"
        assert (await api.get("/run/shop/web/main?cmd=ls", "POST"))[0] == 501
