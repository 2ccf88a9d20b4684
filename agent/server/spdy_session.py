"""A SPDY connection: its streams, as readers and writers.

In: the raw connection after the upgrade. Out: each stream that a client opens, told to `opened`, until it goes away;
or, with us for the client, the streams that we open. A stream that nobody reads holds the others up, as with every peer
of this protocol: it has no flow control.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from aiohttp import web
from loguru import logger

from agent.server import spdy
from agent.server.inlet import Inlet
from agent.server.takeover import READ_AHEAD_BYTES

PROTOCOL = "SPDY/3.1"
PROTOCOL_VERSION = "X-Stream-Protocol-Version"
STREAMS_LIMIT = 1000
"""Open at a time on one connection."""
_FRAME_BYTES = 64 * 1024
HUNG_UP_CHECK_S = 5.0


class Stream:
    """A ByteStream of the provider contract."""

    def __init__(self, stream_id: int, headers: Mapping[str, str], session: Session) -> None:
        self.stream_id = stream_id
        self.headers = headers
        self.inlet = Inlet()
        self.is_over_there = False
        """The client sends no more."""
        self.is_over_here = False
        self._session = session

    async def read(self, limit: int = 65536) -> bytes:
        return await self.inlet.read(limit)

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError when the client has gone, or has closed the stream."""
        if self.is_over_here:
            raise ConnectionResetError("the stream is closed")
        for at in range(0, len(data), _FRAME_BYTES):
            await self._session.send(spdy.Data(self.stream_id, data[at : at + _FRAME_BYTES]))

    async def write_eof(self) -> None:
        if not self.is_over_here:
            self.is_over_here = True
            self._session.forget_if_over(self)
            await self._session.send(spdy.Data(self.stream_id, b"", fin=True))

    async def reset(self, status: spdy.ResetStatus = spdy.ResetStatus.CANCEL) -> None:
        """End it both ways at once."""
        self.is_over_here = self.is_over_there = True
        self._session.forget_if_over(self)
        await self.inlet.end()
        await self._session.send(spdy.RstStream(self.stream_id, status))


class Wire(Protocol):
    """Below it. Both raise OSError."""

    async def read(self, limit: int) -> bytes: ...
    async def write(self, data: bytes) -> None:
        """In the order of the calls."""


class Session:
    """With `opened` the server's side, without the client's."""

    def __init__(self, wire: Wire, opened: Callable[[Stream], None] | None = None) -> None:
        self._wire = wire
        self._opened = opened
        self._encoder = spdy.Encoder()
        self._streams: dict[int, Stream] = {}
        self._last_id = 0

    async def open(self, headers: Mapping[str, str]) -> Stream:
        """As the client. What the other side says to it is not waited for."""
        stream_id = self._last_id = self._last_id + 2 if self._last_id else 1
        stream = self._streams[stream_id] = Stream(stream_id, headers, self)
        await self.send(spdy.SynStream(stream_id, headers))
        return stream

    async def run(self) -> None:
        """Read until the other side goes away, or breaks the protocol. Every stream has ended then."""
        decoder = spdy.Decoder()
        try:
            while received := await self._wire.read(READ_AHEAD_BYTES):
                for frame in decoder.feed(received):
                    await self._take(frame)
        except spdy.ProtocolError as error:
            logger.warning("the other side of a stream broke SPDY: {}", error)
            with suppress(OSError):
                await self.send(spdy.GoAway(self._last_id, 1))
        except OSError as error:
            logger.debug("the other side of a stream went away: {}", error)
        finally:
            for stream in self._streams.values():
                stream.is_over_here = True
                await stream.inlet.end()

    async def send(self, frame: spdy.Frame) -> None:
        """Raises ConnectionError when the client has gone."""
        # Header compression needs frames in order: the call of `write` is in it, with nothing in between.
        await self._wire.write(self._encoder.encode(frame))

    async def discard_all(self) -> None:
        """Whatever the client still sends is read and dropped."""
        for stream in self._streams.values():
            await stream.inlet.discard()

    def forget_if_over(self, stream: Stream) -> None:
        if stream.is_over_here and stream.is_over_there:
            self._streams.pop(stream.stream_id, None)

    async def _take(self, frame: spdy.Frame) -> None:
        match frame:
            case spdy.SynStream():
                await self._open(frame)
            case spdy.Data(stream_id, payload, fin):
                if (stream := self._streams.get(stream_id)) is not None:
                    if payload:
                        await stream.inlet.feed(payload)
                    if fin:
                        await self._ended_there(stream)
            case spdy.Headers(stream_id, _, True):
                if (stream := self._streams.get(stream_id)) is not None:
                    await self._ended_there(stream)
            case spdy.RstStream(stream_id, _):
                if (stream := self._streams.pop(stream_id, None)) is not None:
                    stream.is_over_here = True
                    await stream.inlet.end()
            case spdy.Ping(ping_id) if ping_id % 2 == (self._opened is not None):  # the others answer our own
                await self.send(frame)
            case _:
                pass  # a GOAWAY only says that no stream will be opened any more

    async def _open(self, frame: spdy.SynStream) -> None:
        if self._opened is None or frame.stream_id % 2 == 0 or frame.stream_id <= self._last_id:
            raise spdy.ProtocolError(f"stream {frame.stream_id} after {self._last_id}")
        self._last_id = frame.stream_id
        if len(self._streams) >= STREAMS_LIMIT:
            await self.send(spdy.RstStream(frame.stream_id, spdy.ResetStatus.REFUSED_STREAM))
            return
        stream = self._streams[frame.stream_id] = Stream(frame.stream_id, frame.headers, self)
        await self.send(spdy.SynReply(frame.stream_id))
        if frame.fin:
            await self._ended_there(stream)
        self._opened(stream)

    async def _ended_there(self, stream: Stream) -> None:
        stream.is_over_there = True
        self.forget_if_over(stream)
        await stream.inlet.end()


def negotiated(request: web.Request, served: tuple[str, ...]) -> str | web.Response:
    """The first of the client's protocols that is served, or the refusal that lists them."""
    if request.headers.get("Upgrade", "").lower() != PROTOCOL.lower():
        return web.Response(
            status=400, text=f"upgrade to {PROTOCOL}: this provider is served by no other protocol here"
        )
    texts = request.headers.getall(PROTOCOL_VERSION, [])
    asked = [word.strip() for text in texts for word in text.split(",")]
    if (found := next((word for word in asked if word in served), None)) is not None:
        return found
    refusal = web.Response(status=403, text=f"unable to upgrade: {PROTOCOL_VERSION} must be of {', '.join(served)}")
    for protocol in served:
        refusal.headers.add("X-Accepted-Stream-Protocol-Versions", protocol)
    return refusal


def switching(protocol: str) -> bytes:
    """The answer that ends HTTP on a connection."""
    lines = (
        "HTTP/1.1 101 Switching Protocols",
        "Connection: Upgrade",
        f"Upgrade: {PROTOCOL}",
        f"{PROTOCOL_VERSION}: {protocol}",
    )
    return "\r\n".join((*lines, "", "")).encode()


async def until_gone(reading: asyncio.Task[None], hung_up: Callable[[], bool], *others: asyncio.Task[None]) -> None:
    """Until `reading` is done, one of `others` is, or the client is gone though its words are not all read.

    A reader that waits for a command to take its input does not notice the end of the connection.
    """
    suspected = False
    while True:
        done, _ = await asyncio.wait((reading, *others), timeout=HUNG_UP_CHECK_S, return_when=asyncio.FIRST_COMPLETED)
        gone = hung_up()
        if done or (gone and suspected):
            return
        suspected = gone
