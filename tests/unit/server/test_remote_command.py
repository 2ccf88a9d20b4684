import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.config import Settings
from agent.errors import Retryable
from agent.providers.streaming import AttachIO, TerminalSize
from agent.server import spdy
from tests.fakes.waiting import PATIENCE_S
from tests.unit.server.authority import Authority, client_context
from tests.unit.server.serving import Served, Silent, served
from tests.unit.server.upgraded import SPDY_EXEC, SpdyClient, upgrade

EXEC = "/exec/shop/web/main?command="
ALL = "&input=1&output=1&error=1"
V5 = ("v5.channel.k8s.io",)


class Shell(Silent):
    """Its commands are the methods below."""

    def __init__(self) -> None:
        self.was_cancelled = asyncio.Event()
        self.sizes: list[TerminalSize] = []

    async def run_in_container(
        self, namespace: str, pod: str, container: str, command: Sequence[str], io: AttachIO
    ) -> int:
        assert (namespace, pod, container) == ("shop", "web", "main")
        match command:
            case ["count", code]:
                return await self._count(io, int(code))
            case ["cat"]:
                return await self._cat(io)
            case ["sizes"]:
                async for size in io.resizes():
                    self.sizes.append(size)
                    if len(self.sizes) == 2:
                        break
                return 0
            case ["wait"]:
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    self.was_cancelled.set()
            case ["true"]:
                return 0
            case ["lost"]:
                raise Retryable("the machine behind the pod is away")
            case ["bug"]:
                raise KeyError("secret")
        raise AssertionError(command)

    async def attach_to_container(self, namespace: str, pod: str, container: str, io: AttachIO) -> int:
        assert io.stdout is not None
        await io.stdout.write(b"attached")
        return 0

    async def _count(self, io: AttachIO, code: int) -> int:
        read = 0
        while io.stdin is not None and (block := await io.stdin.read()):
            read += len(block)
        for output, text in ((io.stdout, f"{read} bytes"), (io.stderr, "counted")):
            if output is not None:
                await output.write(text.encode())
        return code

    async def _cat(self, io: AttachIO) -> int:
        assert io.stdin is not None
        assert io.stdout is not None
        while block := await io.stdin.read():
            await io.stdout.write(block)
        return 0


def exit_code(status: bytes) -> int:
    told = json.loads(status)
    if told["status"] == "Success":
        return 0
    assert told["reason"] == "NonZeroExitCode"
    (cause,) = told["details"]["causes"]
    assert cause["reason"] == "ExitCode"
    return int(cause["message"])


# ------------------------------------------------------------ SPDY


async def test_a_command_reads_writes_and_tells_its_exit_code(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    async with (
        served(settings, Shell(), authority.pem, admin) as api,
        upgrade(api, admin, EXEC + "count&command=3" + ALL) as answer,
    ):
        assert answer.status == 101
        assert "X-Stream-Protocol-Version: v4.channel.k8s.io\r\n" in answer.head
        client = SpdyClient(answer)
        error, stdin, stdout, stderr = [
            await client.open(streamtype=kind) for kind in ("error", "stdin", "stdout", "stderr")
        ]
        for _ in range(40):
            await client.send(spdy.Data(stdin, b"x" * 100_000))
        await client.send(spdy.Data(stdin, b"", fin=True))
        await client.until_ended(error, stdout, stderr)
        assert client.received[stdout] == b"4000000 bytes"
        assert client.received[stderr] == b"counted"
        assert exit_code(client.received[error]) == 3


async def test_bytes_pass_unchanged_while_both_sides_send(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    async with (
        served(settings, Shell(), authority.pem, admin) as api,
        upgrade(api, admin, EXEC + "cat&stdin=true&stdout=true") as answer,
    ):
        client = SpdyClient(answer)
        error, stdin, stdout = [await client.open(streamtype=kind) for kind in ("error", "stdin", "stdout")]
        sent = bytes(range(256)) * 8_000

        async def send() -> None:
            for at in range(0, len(sent), 30_000):
                await client.send(spdy.Data(stdin, sent[at : at + 30_000]))
            await client.send(spdy.Data(stdin, b"", fin=True))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            await client.until_ended(error, stdout)
        assert client.received[stdout] == sent
        assert exit_code(client.received[error]) == 0


async def test_the_exit_code_arrives_although_stdin_was_never_read(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    async with (
        served(settings, Shell(), authority.pem, admin) as api,
        upgrade(api, admin, EXEC + "true&input=1&output=1") as answer,
    ):
        client = SpdyClient(answer)
        error, stdin, stdout = [await client.open(streamtype=kind) for kind in ("error", "stdin", "stdout")]
        for _ in range(30):
            await client.send(spdy.Data(stdin, b"x" * 100_000))
        await client.until_ended(error, stdout)
        assert exit_code(client.received[error]) == 0


async def test_the_terminals_sizes_reach_the_command(settings: Settings, authority: Authority, admin: Path) -> None:
    shell = Shell()
    async with (
        served(settings, shell, authority.pem, admin) as api,
        upgrade(api, admin, EXEC + "sizes&output=1&tty=1") as answer,
    ):
        client = SpdyClient(answer)
        error, _, resize = [await client.open(streamtype=kind) for kind in ("error", "stdout", "resize")]
        await client.send(spdy.Data(resize, b'{"Width":80,"Height":24}\n{"Wid'))
        await client.send(spdy.Data(resize, b'th":0,"Height":0}\n{"Width":120,"Height":40}'))
        await client.until_ended(error)
    assert shell.sizes == [TerminalSize(80, 24), TerminalSize(120, 40)]


async def test_attach_is_served_alike(settings: Settings, authority: Authority, admin: Path) -> None:
    async with (
        served(settings, Shell(), authority.pem, admin) as api,
        upgrade(api, admin, "/attach/shop/web/main?output=1") as answer,
    ):
        client = SpdyClient(answer)
        error, stdout = [await client.open(streamtype=kind) for kind in ("error", "stdout")]
        await client.until_ended(error, stdout)
        assert client.received[stdout] == b"attached"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("lost", "the machine behind the pod is away"),
        ("bug", "the node's provider failed, see the node's log"),
    ],
)
async def test_a_command_that_cannot_be_run_is_told_as_an_error(
    settings: Settings, authority: Authority, admin: Path, command: str, message: str
) -> None:
    async with (
        served(settings, Shell(), authority.pem, admin) as api,
        upgrade(api, admin, EXEC + command + "&output=1") as answer,
    ):
        client = SpdyClient(answer)
        error, _ = [await client.open(streamtype=kind) for kind in ("error", "stdout")]
        await client.until_ended(error)
    status = json.loads(client.received[error])
    assert (status["status"], status["reason"], status["code"]) == ("Failure", "InternalError", 500)
    assert status["details"]["causes"] == [{"message": message}]


async def test_a_client_that_goes_away_cancels_the_command(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    shell = Shell()
    async with served(settings, shell, authority.pem, admin) as api:
        async with upgrade(api, admin, EXEC + "wait&output=1") as answer:
            client = SpdyClient(answer)
            for kind in ("error", "stdout"):
                await client.open(streamtype=kind)
            await client.until_pong()
        async with asyncio.timeout(PATIENCE_S):
            await shell.was_cancelled.wait()


async def test_streams_that_never_open_end_the_session(
    settings: Settings, authority: Authority, admin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.server.remote_command.CREATION_S", 0.05)
    monkeypatch.setattr("agent.server.remote_command.FAREWELL_S", 0.05)
    async with (
        served(settings, Shell(), authority.pem, admin) as api,
        upgrade(api, admin, EXEC + "true&output=1") as answer,
    ):
        assert await answer.reader.read() == b""


async def test_a_client_that_breaks_the_protocol_is_sent_away(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    async with (
        served(settings, Shell(), authority.pem, admin) as api,
        upgrade(api, admin, EXEC + "true&output=1") as answer,
    ):
        answer.writer.write(b"\x80\x02" + bytes(6))  # SPDY/2
        rest = await answer.reader.read()
        assert list(spdy.Decoder().feed(rest)) == [spdy.GoAway(0, 1)]


@pytest.mark.parametrize("protocol", ["channel.k8s.io", "v2.channel.k8s.io, v3.channel.k8s.io", ""])
async def test_older_protocols_are_refused_with_the_list_of_those_served(
    settings: Settings, authority: Authority, admin: Path, protocol: str
) -> None:
    headers = {"Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": protocol}
    async with (
        served(settings, Shell(), authority.pem, admin) as api,
        upgrade(api, admin, EXEC + "true&output=1", headers) as answer,
    ):
        assert answer.status == 403
        assert "X-Accepted-Stream-Protocol-Versions: v4.channel.k8s.io" in answer.head


async def test_another_upgrade_is_refused(settings: Settings, authority: Authority, admin: Path) -> None:
    async with (
        served(settings, Shell(), authority.pem, admin) as api,
        upgrade(api, admin, EXEC + "true&output=1", {**SPDY_EXEC, "Upgrade": "h2c"}) as answer,
    ):
        assert answer.status == 400


async def test_run_collects_what_a_command_writes(settings: Settings, authority: Authority, admin: Path) -> None:
    async with served(settings, Shell(), authority.pem, admin) as api:
        assert await api.get("/run/shop/web/main?cmd=count+0", "POST") == (200, "0 bytescounted")
        assert (await api.get("/run/shop/web/main?cmd=count+7", "POST"))[0] == 500
        assert await api.get("/run/shop/web/main?cmd=lost", "POST") == (503, "the machine behind the pod is away")


# ------------------------------------------------------------ WebSocket


async def messages(socket: Any) -> dict[int, bytes]:
    """To the end, by channel."""
    received: dict[int, bytes] = {}
    while (message := await socket.receive()).type is aiohttp.WSMsgType.BINARY:
        received[message.data[0]] = received.get(message.data[0], b"") + message.data[1:]
    return received


@asynccontextmanager
async def connect(api: Served, admin: Path, path: str, protocols: tuple[str, ...]) -> AsyncIterator[Any]:
    async with api.session.ws_connect(api.url + path, protocols=protocols, ssl=client_context(admin)) as socket:
        yield socket


async def test_websocket_version_5_closes_stdin_alone(settings: Settings, authority: Authority, admin: Path) -> None:
    async with (
        served(settings, Shell(), authority.pem, admin) as api,
        connect(api, admin, EXEC + "count&command=3" + ALL, (*V5, "v4.channel.k8s.io")) as socket,
    ):
        assert socket.protocol == "v5.channel.k8s.io"
        assert (await socket.receive()).data == b"\x01"  # connected
        for _ in range(20):
            await socket.send_bytes(b"\x00" + b"x" * 50_000)
        await socket.send_bytes(b"\xff\x00")
        received = await messages(socket)
    assert (received[1], received[2]) == (b"1000000 bytes", b"counted")
    assert exit_code(received[3]) == 3


async def test_websocket_version_4_is_served_and_has_sizes(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    shell = Shell()
    async with (
        served(settings, shell, authority.pem, admin) as api,
        connect(api, admin, EXEC + "sizes&output=1&tty=1", ("v4.channel.k8s.io",)) as socket,
    ):
        for size in (b'{"Width":80,"Height":24}', b'{"Width":120,"Height":40}'):
            await socket.send_bytes(b"\x04" + size)
        assert exit_code((await messages(socket))[3]) == 0
    assert shell.sizes == [TerminalSize(80, 24), TerminalSize(120, 40)]


async def test_a_websocket_client_that_goes_away_cancels_the_command(
    settings: Settings, authority: Authority, admin: Path
) -> None:
    shell = Shell()
    async with served(settings, shell, authority.pem, admin) as api:
        async with connect(api, admin, EXEC + "wait&output=1", V5) as socket:
            await socket.receive()
        async with asyncio.timeout(PATIENCE_S):
            await shell.was_cancelled.wait()


async def test_an_unknown_websocket_protocol_is_refused(settings: Settings, authority: Authority, admin: Path) -> None:
    async with served(settings, Shell(), authority.pem, admin) as api:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connect(api, admin, EXEC + "true&output=1", ("v1.channel.k8s.io",)):
                pass
        assert refused.value.status == 400
