"""The shipper with a real spool and a real HTTP server that comes and goes."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from agent.pods.log_shipping import PREFIX, shipper
from agent.pods.log_shipping.message import LogLine
from agent.pods.log_shipping.shipper import Shipper
from agent.pods.log_shipping.spool import PodRow, Spool
from agent.policies.log_sink import LogSink, parse_log_sink
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import eventually
from tests.unit.node.machine import FakeEvents

UID = "1-2-3"


class Sink:
    """An HTTP server at one port for the whole test."""

    def __init__(self) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.status = 204
        self.longest = 10**6
        self.lines: list[str] = []
        self.asked = 0

    @property
    def sink(self) -> LogSink:
        return parse_log_sink(f"http://me:secret@127.0.0.1:{self.port}/")

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        body = await request.read()
        if len(body) > self.longest:
            return web.Response(status=413)
        if self.status == 204:
            self.lines += [msgspec.json.decode(line, type=LogLine).log for line in body.splitlines()]
        return web.Response(status=self.status)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_post("/", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
        yield
        await runner.cleanup()


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = MemoryStore()
        self.events = FakeEvents()

    def write(self, *texts: str) -> None:
        path = self.folder / f"default_talks_{UID}" / "main" / "0.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.writelines(f"2026-03-01T12:00:00Z stdout F {text}\n" for text in texts)

    def recorded_offset(self) -> int:
        row = self.store.rows.get(PREFIX + UID)
        kept = msgspec.json.decode(row.value, type=PodRow).containers if row is not None else {}
        return kept["main"].cursor.offset if kept else 0

    @asynccontextmanager
    async def running(self, sink: LogSink | None = None, limit: int = 10**6) -> AsyncIterator[Shipper]:
        made = Shipper(Spool(self.folder, "edge", limit), self.store, self.events, "edge", limit)
        await made.load()
        if sink is not None:
            made.spool.follow(UID, "default", "talks", sink)
            made.wake()
        task = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for name in ("LOOK_S", "RECORD_S", "FIRST_PAUSE_S", "LONGEST_PAUSE_S", "REFUSED_PAUSE_S"):
        monkeypatch.setattr(shipper, name, 0.01)
    return World(tmp_path)


async def test_lines_of_an_outage_come_once_it_is_over_and_the_record_says_how_far(world: World) -> None:
    server = Sink()
    async with world.running(server.sink):
        world.write("a")
        async with server.up():
            await eventually(lambda: server.lines == ["a"])
        world.write("b", "c")
        async with server.up():
            await eventually(lambda: server.lines == ["a", "b", "c"])
            await eventually(lambda: PREFIX + UID in world.store.rows)


async def test_a_restart_of_the_agent_goes_on_where_it_was(world: World) -> None:
    server = Sink()
    async with server.up():
        async with world.running(server.sink):
            world.write("a")
            await eventually(lambda: server.lines == ["a"] and world.recorded_offset() > 0)
        world.write("b")
        async with world.running(server.sink):
            await eventually(lambda: server.lines == ["a", "b"])


async def test_a_sink_that_refuses_is_said_once_on_the_pod_without_its_password_and_nothing_is_lost(
    world: World,
) -> None:
    server = Sink()
    server.status = 403
    async with server.up(), world.running(server.sink):
        world.write("a")
        await eventually(lambda: server.asked > 3)
        ((about, kind, reason, message),) = world.events.recorded
        assert (about.kind, about.name, about.uid, kind, reason) == ("Pod", "talks", UID, "Warning", "LogsRefused")
        assert "403" in message
        assert "secret" not in message
        server.status = 204
        await eventually(lambda: server.lines == ["a"])


async def test_a_line_that_is_too_long_for_the_sink_does_not_stand_in_the_way_of_the_others(world: World) -> None:
    server = Sink()
    server.longest = 1000
    async with server.up(), world.running(server.sink):
        world.write(*(f"{number}" for number in range(20)), "x" * 2000, "last")
        await eventually(lambda: "last" in server.lines)
        assert [text for text in server.lines if "dropped" not in text] == [*map(str, range(20)), "last"]
        assert server.lines[20].startswith("1 lines of this log were dropped here")
        ((_, _, reason, message),) = world.events.recorded
        assert reason == "LogsLost"
        assert message.endswith("takes no line of that length")


async def test_a_sink_that_is_away_for_long_is_said_on_the_node(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper, "AWAY_S", 0.05)
    async with world.running(Sink().sink):
        world.write("a")
        await eventually(lambda: world.events.recorded)
        about, _, reason, message = world.events.recorded[0]
        assert (about.kind, about.name, reason) == ("Node", "edge", "LogSinkAway")
        assert "secret" not in message


async def test_what_is_lost_is_said_on_the_pod_and_to_the_sink(world: World) -> None:
    server = Sink()
    async with world.running(server.sink, limit=0) as running:
        world.write("a", "b")
        running.spool.claim(world.folder / f"default_talks_{UID}")
        (world.folder / f"default_talks_{UID}" / "main" / "0.log").unlink()
        world.write("c")
        await eventually(lambda: world.events.recorded)
        about, _, reason, message = world.events.recorded[0]
        assert (about.kind, reason) == ("Pod", "LogsLost")
        assert message.startswith('2 lines of container "main" were dropped')
        async with server.up():
            await eventually(lambda: len(server.lines) == 2)
        assert server.lines[0].startswith("2 lines of this log were dropped here")
        assert server.lines[1] == "c"


async def test_a_connection_that_breaks_soon_after_costs_no_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[bytes] = []
    deaf = True
    broken = asyncio.Event()

    async def unread(writer: asyncio.StreamWriter) -> None:
        """Until the machine, not the program, has got something."""
        connection = writer.get_extra_info("socket")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await eventually(lambda: struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4)))[0])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if deaf:  # its machine acknowledges, and it ends without having read
            await unread(writer)
            writer.transport.abort()
            broken.set()
            return
        while size := await reader.readuntil(b" "):
            got.append(await reader.readexactly(int(size)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    sink = parse_log_sink(f"syslog+tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with world.running(sink):
        world.write("a")
        await broken.wait()
        deaf = False
        world.write("b")
        await eventually(lambda: [message.rsplit(b" ", 1)[1] for message in got][-2:] == [b"a", b"b"])
    server.close()
