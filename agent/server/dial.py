"""Open a session at the runtime's streaming server: connect, ask for the upgrade, read the answer.

In: the URL that the runtime gave for this session, and the headers of the upgrade. Out: the connected socket with what
was answered. A plain socket: after a failed write it can still be read, and a command's exit code may be what is left.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec

from agent.errors import Permanent, Retryable

CREATION_S = 30.0
"""The kubelet's."""
BODY_LIMIT = 64 * 1024
_HEAD_LIMIT = 64 * 1024
_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TYPE = re.compile(rb"\r\ncontent-type: *([^\r]+)", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


class Dialled(msgspec.Struct, frozen=True):
    """The caller closes `server`."""

    server: socket.socket
    status: int
    head: bytes
    """Of the answer, with the empty line."""
    rest: bytes
    """What has come after the head: the session's first bytes, or the whole body of a refusal."""

    @property
    def content_type(self) -> str:
        return match[1].decode("latin-1") if (match := _TYPE.search(self.head)) else "text/plain"


async def dial(url: str, method: str, headers: Iterable[str]) -> Dialled:
    """Raises Retryable where the server does not answer in time, Permanent for an address that cannot be served."""
    target = urlsplit(url)
    if target.scheme != "http" or target.hostname is None:
        raise Permanent("", f"the runtime streams at {target.scheme}://, only http:// is served: turn its TLS off")
    path = f"{target.path or '/'}{'?' + target.query if target.query else ''}"
    lines = (f"{method} {path} HTTP/1.1", f"Host: {target.netloc}", *headers, "Content-Length: 0", "", "")
    request = "\r\n".join(lines).encode("utf-8", "surrogateescape")
    try:
        async with asyncio.timeout(CREATION_S):
            server = await _connect(target.hostname, target.port or 80)
            try:
                await asyncio.get_running_loop().sock_sendall(server, request)
                return await _answer(server)
            except BaseException:
                server.close()
                raise
    except OSError as error:  # TimeoutError is one
        why = f"no answer within {CREATION_S:g} s" if isinstance(error, TimeoutError) else str(error)
        raise Retryable(f"the runtime's streaming server at {target.netloc}: {why}") from error


async def _connect(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    why = OSError("no such host")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        server = socket.socket(family, kind, protocol)
        try:
            server.setblocking(False)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(server, address)
            return server
        except OSError as error:
            server.close()
            why = error
        except BaseException:
            server.close()
            raise
    raise why


async def _answer(server: socket.socket) -> Dialled:
    loop = asyncio.get_running_loop()
    received = bytearray()
    while (end := received.find(_END)) < 0:
        block = await loop.sock_recv(server, _HEAD_LIMIT)
        if not block or len(received) + len(block) > _HEAD_LIMIT:
            raise ConnectionResetError("it ended the connection" if not block else "its answer has no end")
        received += block
    end += len(_END)
    head, rest = bytes(received[:end]), bytes(received[end:])
    if (match := _STATUS.match(head)) is None:
        raise ConnectionError("it does not speak HTTP/1.1")
    if (status := int(match[1])) != 101:
        length = min(int(found[1]), BODY_LIMIT) if (found := _LENGTH.search(head)) else BODY_LIMIT
        while len(rest) < length and (block := await loop.sock_recv(server, length - len(rest))):
            rest += block
        rest = rest[:length]
    return Dialled(server, status, head, rest)
