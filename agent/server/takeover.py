"""Take an HTTP connection over once it speaks another protocol.

In: a request whose upgrade was accepted. Out: a reader and a writer of the raw connection, below them the same TLS; at
the end it is closed, whatever was written before is sent first, and aiohttp is told so that its count of connections
stays right. The web framework knows only of WebSockets, and its parser must not see these bytes.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

READ_AHEAD_BYTES = 64 * 1024
CLOSE_S = 5.0
"""For the last bytes to leave, and the other side's farewell."""


class Connection(msgspec.Struct, frozen=True):
    """The raw connection. `reader` ends when the client does."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self, limit: int = READ_AHEAD_BYTES) -> bytes:
        return await self.reader.read(limit)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def hung_up(self) -> bool:
        """Whether the client has closed, also while unread bytes of it keep the reader from noticing."""
        return hung_up(self.writer.transport)


def hung_up(transport: asyncio.BaseTransport | None) -> bool:
    """Whether the other side has closed, whatever of it is still unread."""
    if transport is None or transport.is_closing():
        return True
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


class Upgraded(web.StreamResponse):
    """What a handler returns after a take-over: nothing is sent for it, the connection is not HTTP any more."""

    def __init__(self) -> None:
        super().__init__(status=101)
        self.force_close()

    async def prepare(self, _request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, _data: bytes = b"") -> None:
        return


@asynccontextmanager
async def take_over(request: web.Request) -> AsyncIterator[Connection]:
    """The connection is the caller's inside, and closed after. The answer to the upgrade is the caller's to write.

    Raises ConnectionError where the client is gone already.
    """
    transport, http = request.transport, request.protocol
    if transport is None:
        raise ConnectionResetError("the client went away")
    reader = asyncio.StreamReader(limit=READ_AHEAD_BYTES)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    # aiohttp may have paused it; nobody else will let it go on.
    transport.resume_reading()
    writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
    try:
        yield Connection(reader, writer)
        writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await writer.wait_closed()
    finally:
        with suppress(AttributeError):  # Python before 3.11.3: nothing to abort where TLS's connection is lost already
            transport.abort()
        http.connection_lost(None)
