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
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiohttp import web

from agent.errors import Permanent, Retryable
from agent.server.takeover import Connection, Upgraded, take_over

CREATION_S = 30.0
IDLE_S = 4 * 3600.0
"""Both are the kubelet's."""
CHECK_S = 5.0
BLOCK_BYTES = 128 * 1024
HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 64 * 1024
_END = b"\r\n\r\n"
_REPLAYED = re.compile(r"upgrade|connection|x-stream-protocol-version|sec-websocket-.*", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TYPE = re.compile(rb"\r\ncontent-type: *([^\r]+)", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


async def splice(request: web.Request, url: str) -> web.StreamResponse:
    """The whole session. A refusal of the streaming server is the answer.

    Raises Retryable where that server does not answer, Permanent for an address that cannot be served.
    """
    target = urlsplit(url)
    if target.scheme != "http" or target.hostname is None:
        raise Permanent("", f"the runtime streams at {target.scheme}://, only http:// is served: turn its TLS off")
    server = await _connect(target.hostname, target.port or 80)
    try:
        path = f"{target.path or '/'}{'?' + target.query if target.query else ''}"
        head = _head(request, path, target.netloc)
        try:
            async with asyncio.timeout(CREATION_S):
                await asyncio.get_running_loop().sock_sendall(server, head)
                answer, rest = await _answer(server)
                if (status := _status(answer)) != 101:
                    return await _refusal(server, status, answer, rest)
        except (OSError, TimeoutError) as error:
            raise _unanswered(url, error) from error
        async with take_over(request) as client:
            client.writer.write(answer + rest)
            await _Session(client, server).run()
        return Upgraded()
    finally:
        server.close()


@dataclass(slots=True)
class _Session:
    client: Connection
    server: socket.socket
    over: asyncio.Event = field(default_factory=asyncio.Event)
    up_bytes: int = 0
    down_bytes: int = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            pumps = [tasks.create_task(self._up(), name="to the runtime"), tasks.create_task(self._down(), name="back")]
            await self._until_over()
            for pump in pumps:
                pump.cancel()

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
            elif loop.time() - moved_at >= IDLE_S:
                return


def _head(request: web.Request, path: str, host: str) -> bytes:
    """The client's request again, with what makes the upgrade and nothing else: no credential of it goes on."""
    lines = [f"{request.method} {path} HTTP/1.1", f"Host: {host}", *_replayed(request), "Content-Length: 0"]
    return "\r\n".join((*lines, "", "")).encode("utf-8", "surrogateescape")


def _replayed(request: web.Request) -> Iterable[str]:
    return (f"{name}: {value}" for name, value in request.headers.items() if _REPLAYED.fullmatch(name))


async def _connect(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    why: Exception = OSError("no such host")
    try:
        async with asyncio.timeout(CREATION_S):
            for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                server = socket.socket(family, kind, protocol)
                try:
                    server.setblocking(False)
                    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    await loop.sock_connect(server, address)
                    return server
                except BaseException as error:
                    server.close()
                    if not isinstance(error, OSError):
                        raise
                    why = error
    except (OSError, TimeoutError) as error:
        why = error
    raise _unanswered(f"{host}:{port}", why) from why


async def _answer(server: socket.socket) -> tuple[bytes, bytes]:
    """Its head, and what came with it."""
    received = bytearray()
    while (end := received.find(_END)) < 0:
        block = await asyncio.get_running_loop().sock_recv(server, HEAD_LIMIT)
        if not block or len(received) + len(block) > HEAD_LIMIT:
            raise ConnectionResetError("it ended the connection" if not block else "its answer has no end")
        received += block
    end += len(_END)
    return bytes(received[:end]), bytes(received[end:])


def _status(answer: bytes) -> int:
    match = _STATUS.match(answer)
    if match is None:
        raise ConnectionError("it does not speak HTTP/1.1")
    return int(match[1])


async def _refusal(server: socket.socket, status: int, answer: bytes, body: bytes) -> web.Response:
    length = min(int(match[1]), BODY_LIMIT) if (match := _LENGTH.search(answer)) else BODY_LIMIT
    while len(body) < length and (block := await asyncio.get_running_loop().sock_recv(server, length - len(body))):
        body += block
    kind = match[1].decode("latin-1") if (match := _TYPE.search(answer)) else "text/plain"
    return web.Response(status=status, body=body[:length], headers={"Content-Type": kind})


def _unanswered(where: str, error: Exception) -> Retryable:
    why = f"no answer within {CREATION_S:g} s" if isinstance(error, TimeoutError) else str(error)
    return Retryable(f"the runtime's streaming server at {urlsplit(where).netloc or where}: {why}")
