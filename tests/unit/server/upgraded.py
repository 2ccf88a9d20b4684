"""A client that upgrades, and one that speaks SPDY after that."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from agent.server import spdy
from tests.fakes.waiting import PATIENCE_S
from tests.unit.server.authority import client_context
from tests.unit.server.serving import Served

SPDY_EXEC = {"Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v4.channel.k8s.io"}
SPDY_FORWARD = {"Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "portforward.k8s.io"}


@dataclass
class Answer:
    head: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    async def body(self) -> str:
        """To the end of the connection."""
        return (await self.reader.read()).decode()


@asynccontextmanager
async def upgrade(
    api: Served, certificate: Path, path: str, headers: Mapping[str, str] = SPDY_EXEC, method: str = "POST"
) -> AsyncIterator[Answer]:
    """Everything must be over in five seconds."""
    where = urlsplit(api.url)
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(where.hostname, where.port, ssl=client_context(certificate))
        lines = [f"{method} {path} HTTP/1.1", "Host: node", "Connection: Upgrade"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join((*lines, "", "")).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        try:
            yield Answer(head, reader, writer)
        finally:
            writer.transport.abort()


@dataclass
class SpdyClient:
    """As kubectl: opens its streams, then reads until the error stream has ended."""

    answer: Answer
    encoder: spdy.Encoder = field(default_factory=spdy.Encoder)
    decoder: spdy.Decoder = field(default_factory=spdy.Decoder)
    received: dict[int, bytes] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    replied: set[int] = field(default_factory=set)
    reset: set[int] = field(default_factory=set)
    pongs: list[int] = field(default_factory=list)
    next_id: int = 1

    async def open(self, **headers: str) -> int:
        stream_id, self.next_id = self.next_id, self.next_id + 2
        await self.send(spdy.SynStream(stream_id, headers))
        return stream_id

    async def send(self, frame: spdy.Frame) -> None:
        self.answer.writer.write(self.encoder.encode(frame))
        await self.answer.writer.drain()

    async def until_ended(self, *streams: int) -> None:
        while not self.ended.issuperset(streams):
            await self._read()

    async def until(self, stream: int, expected: bytes) -> None:
        while self.received.get(stream, b"") != expected:
            await self._read()

    async def until_pong(self) -> None:
        """Everything that was sent before has been taken then."""
        await self.send(spdy.Ping(1))
        while not self.pongs:
            await self._read()
        self.pongs.clear()

    async def _read(self) -> None:
        block = await self.answer.reader.read(65536)
        assert block, "the server closed the connection"
        for frame in self.decoder.feed(block):
            match frame:
                case spdy.SynReply(stream_id):
                    self.replied.add(stream_id)
                case spdy.Data(stream_id, payload, fin):
                    assert stream_id in self.replied
                    self.received[stream_id] = self.received.get(stream_id, b"") + payload
                    if fin:
                        self.ended.add(stream_id)
                case spdy.RstStream(stream_id):
                    self.reset.add(stream_id)
                case spdy.Ping(ping_id):
                    self.pongs.append(ping_id)
                case _:
                    raise AssertionError(frame)
