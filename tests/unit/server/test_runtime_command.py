import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent.config import Settings
from agent.errors import Permanent, Retryable
from agent.server.remote_command import status_of, status_of_error
from agent.server.runtime_command import exit_code
from agent.server.spdy_session import Session, Stream, switching
from agent.server.takeover import Connection
from tests.fakes.waiting import PATIENCE_S
from tests.unit.server.authority import Authority
from tests.unit.server.serving import served
from tests.unit.server.test_remote_command import V5, connect, messages
from tests.unit.server.test_splice import ByUrl, runtime

EXEC = "/exec/shop/web/main?command=sh"
Command = Callable[[dict[str, Stream]], Awaitable[bytes]]


def running(command: Command, *kinds: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """A runtime's session: once the client has opened these streams, the command, whose status is its last word."""

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(switching("v4.channel.k8s.io"))
        streams: dict[str, Stream] = {}
        complete = asyncio.Event()

        def opened(stream: Stream) -> None:
            streams[stream.headers["streamtype"]] = stream
            if streams.keys() == {"error", *kinds}:
                complete.set()

        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(Session(Connection(reader, writer), opened).run())
            await complete.wait()
            status = await command(streams)
            for kind in {"stdout", "stderr"} & streams.keys():
                await streams[kind].write_eof()
            await streams["error"].write(status)
            await streams["error"].write_eof()
            reading.cancel()

    return session


async def test_version_5_is_spoken_with_the_client_and_spdy_with_the_runtime(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    async def count(streams: dict[str, Stream]) -> bytes:
        read = 0
        while block := await streams["stdin"].read():
            read += len(block)
        await streams["stdout"].write(f"{read} bytes".encode())
        await streams["stderr"].write(b"counted")
        return status_of(3)

    async with (
        runtime(running(count, "stdin", "stdout", "stderr")) as (url, heads),
        served(settings, ByUrl(url), authority.pem, admin) as api,
        connect(api, admin, EXEC + "&input=1&output=1&error=1", V5) as socket,
    ):
        for _ in range(40):
            await socket.send_bytes(b"\x00" + b"x" * 50_000)
        await socket.send_bytes(b"\xff\x00")
        received = await messages(socket)
    assert received == {1: b"2000000 bytes", 2: b"counted", 3: status_of(3)}
    assert "Upgrade: SPDY/3.1\r\n" in heads[0]


async def test_sizes_of_the_terminal_are_passed_on(settings: Settings, authority: Authority, admin: Path) -> None:
    async def sizes(streams: dict[str, Stream]) -> bytes:
        await streams["stdout"].write(await streams["resize"].read())
        return status_of(0)

    async with (
        runtime(running(sizes, "stdout", "resize")) as (url, _),
        served(settings, ByUrl(url), authority.pem, admin) as api,
        connect(api, admin, EXEC + "&output=1&tty=1", V5) as socket,
    ):
        await socket.send_bytes(b'\x04{"Width":80,"Height":24}')
        received = await messages(socket)
    assert received == {1: b'{"Width": 80, "Height": 24}\n', 3: status_of(0)}


async def test_a_client_that_goes_away_ends_the_runtimes_session(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    ended = asyncio.Event()

    async def until_end(streams: dict[str, Stream]) -> bytes:
        await streams["stdout"].write(b"here")
        await streams["stdin"].read()
        ended.set()
        return b""

    async with (
        runtime(running(until_end, "stdin", "stdout")) as (url, _),
        served(settings, ByUrl(url), authority.pem, admin) as api,
    ):
        async with connect(api, admin, EXEC + "&input=1&output=1", V5) as socket:
            await socket.receive()
            assert (await socket.receive()).data == b"\x01here"
        async with asyncio.timeout(PATIENCE_S):
            await ended.wait()


async def test_a_runtime_that_refuses_or_breaks_off_is_told_in_the_status(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    async def refuses(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 15\r\n\r\ntoken not found")

    async def breaks_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(switching("v4.channel.k8s.io"))

    for session, text in ((refuses, b"token not found"), (breaks_off, b"the runtime ended the session")):
        async with (
            runtime(session) as (url, _),
            served(settings, ByUrl(url), authority.pem, admin) as api,
            connect(api, admin, EXEC + "&output=1", V5) as socket,
        ):
            received = await messages(socket)
        assert text in received[3]
        assert b'"reason":"InternalError"' in received[3]


def test_exit_codes_are_read_from_a_status() -> None:
    assert exit_code(status_of(0)) == 0
    assert exit_code(status_of(137)) == 137
    with pytest.raises(Permanent, match=r"^no such program$"):
        exit_code(status_of_error("no such program"))
    with pytest.raises(Permanent, match="not understood"):
        exit_code(b'{"status":"Failure","reason":"NonZeroExitCode"}')
    with pytest.raises(Permanent, match="not understood"):
        exit_code(b"[]")
    with pytest.raises(Retryable, match="without saying how"):
        exit_code(b"")
