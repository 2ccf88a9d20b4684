"""Join a client to the runtime's streaming server: its upgrade request is replayed there, then bytes pass both ways.

In: the client's request and the URL that the runtime gave. Out: the session, byte for byte, whatever protocol they
agree on. What one side sends faster than the other takes waits there, not here. The session ends when the runtime ends
it, when the client goes away, or after hours without a byte.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterable
from contextlib import suppress

import msgspec
from aiohttp import web

from agent.server.clients import BEARER_PROTOCOL
from agent.server.dial import dial
from agent.server.takeover import Connection, Upgraded, take_over

IDLE_S = 4 * 3600.0
"""The kubelet's."""
CHECK_S = 5.0
FAREWELL_S = 1.0
"""For a client to take the last words and close by itself."""
BLOCK_BYTES = 128 * 1024
_REPLAYED = re.compile(r"upgrade|connection|x-stream-protocol-version|sec-websocket-.*", re.IGNORECASE)


async def splice(request: web.Request, url: str, idle_s: float = IDLE_S) -> web.StreamResponse:
    """The whole session. A refusal of the streaming server is the answer.

    Raises Retryable where that server does not answer, Permanent for an address that cannot be served.
    """
    dialled = await dial(url, request.method, _replayed(request))
    try:
        if dialled.status != 101:
            kind = {"Content-Type": dialled.content_type}
            return web.Response(status=dialled.status, body=dialled.rest, headers=kind)
        async with take_over(request) as client:
            client.writer.write(dialled.head + dialled.rest)
            await _Session(client, dialled.server, idle_s).run()
        return Upgraded()
    finally:
        dialled.server.close()


class _Session(msgspec.Struct):
    client: Connection
    server: socket.socket
    idle_s: float
    over: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    is_over_there: bool = False
    """The runtime has said everything."""
    up_bytes: int = 0
    down_bytes: int = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            pumps = [tasks.create_task(self._up(), name="to the runtime"), tasks.create_task(self._down(), name="back")]
            await self._until_over()
            for pump in pumps:
                pump.cancel()
        if self.is_over_there:
            await self._let_go()

    async def _let_go(self) -> None:
        """To close on a client that still sends would reset the connection, and its last words could be lost."""
        with suppress(OSError):
            async with asyncio.timeout(FAREWELL_S):
                while await self.client.reader.read(BLOCK_BYTES):
                    pass

    async def _up(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while block := await self.client.reader.read(BLOCK_BYTES):
                try:
                    await loop.sock_sendall(self.server, block)
                except OSError:
                    # It reads no more, but its last words (an exit code) may still be on their way down.
                    return
                self.up_bytes += len(block)
        except OSError:
            pass
        self.over.set()

    async def _down(self) -> None:
        loop = asyncio.get_running_loop()
        block = memoryview(bytearray(BLOCK_BYTES))
        try:
            while count := await loop.sock_recv_into(self.server, block):
                self.client.writer.write(bytes(block[:count]))
                await self.client.writer.drain()
                self.down_bytes += count
        except OSError:
            pass
        self.is_over_there = True
        self.over.set()

    async def _until_over(self) -> None:
        loop = asyncio.get_running_loop()
        moved, moved_at, up = 0, loop.time(), 0
        while not self.over.is_set():
            try:
                async with asyncio.timeout(CHECK_S):
                    await self.over.wait()
            except TimeoutError:
                # A client that goes away while the runtime takes nothing more from it would not be noticed.
                if up == self.up_bytes and self.client.hung_up():
                    return
            up = self.up_bytes
            if (now := self.up_bytes + self.down_bytes) != moved:
                moved, moved_at = now, loop.time()
            elif loop.time() - moved_at >= self.idle_s:
                return


def _replayed(request: web.Request) -> Iterable[str]:
    """What makes the upgrade and nothing else: no credential of the client goes on."""
    for name, value in request.headers.items():
        if name.lower() == "sec-websocket-protocol":
            words = (word.strip() for word in value.split(","))
            value = ", ".join(word for word in words if not word.startswith(BEARER_PROTOCOL))
        if _REPLAYED.fullmatch(name):
            yield f"{name}: {value}"
