"""exec, attach and port-forward of a caller with a credential of the cluster's: through to the API server.

In: an upgrade request. Out: the API server's session, byte by byte, or its refusal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlsplit

from aiohttp import web

from agent.server.local_api.answers import refused
from agent.server.local_api.upstream import Upstream
from agent.server.takeover import Connection, Upgraded, take_over

CONNECT_S = 5.0
ANSWER_S = 30.0
HEAD_BYTES = 2**16
BLOCK_BYTES = 2**17
_NOT_PASSED_ON = frozenset({"host", "content-length", "transfer-encoding", "forwarded", "x-forwarded-for"})


async def upgrade(request: web.Request, upstream: Upstream) -> web.StreamResponse:
    access = upstream.access
    if access.proxy is not None:
        return refused(501, "sessions are not passed on through the proxy that the API server is reached by")
    url = urlsplit(access.server)
    port = url.port or (443 if url.scheme == "https" else 80)
    tls = upstream.tls()
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(
                url.hostname, port, ssl=tls, server_hostname=(access.server_hostname or url.hostname) if tls else None
            )
    except (OSError, TimeoutError) as error:
        why = str(error) or "no answer in time"
        return refused(503, f"the API server does not answer ({why}), and the session needs it", retry_after_s=5)
    try:
        writer.write(_head(request, url.netloc, url.path.rstrip("/")))
        try:
            async with asyncio.timeout(ANSWER_S):
                await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return refused(503, "the API server did not answer the upgrade", retry_after_s=5)
        if head.split(b" ", 2)[1:2] != [b"101"]:
            return await _refusal(head, reader)
        async with take_over(request) as client:
            await client.write(head)
            await _both_ways(client, reader, writer)
        return Upgraded()
    finally:
        writer.close()


def _head(request: web.Request, host: str, base: str) -> bytes:
    lines = [f"{request.method} {base}{request.raw_path} HTTP/1.1", f"Host: {host}"]
    lines += [
        f"{name}: {value}"
        for name, value in request.headers.items()
        if name.lower() not in _NOT_PASSED_ON and not name.lower().startswith("x-remote-")
    ]
    if request.method == "POST":
        lines.append("Content-Length: 0")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


async def _refusal(head: bytes, reader: asyncio.StreamReader) -> web.Response:
    status = head.split(b" ", 2)[1].decode("ascii", "replace")
    length = next(
        (
            int(v)
            for n, _, v in (line.partition(b":") for line in head.lower().split(b"\r\n"))
            if n == b"content-length" and v.strip().isdigit()
        ),
        0,
    )
    body = b""
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(CONNECT_S):
            body = await reader.readexactly(min(length, HEAD_BYTES))
    return web.Response(status=int(status) if status.isdigit() else 502, body=body, content_type="application/json")


async def _both_ways(client: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until either side ends."""

    async def pump(read: Callable[[int], Awaitable[bytes]], write: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while block := await read(BLOCK_BYTES):
                write.write(block)
                await write.drain()

    async with asyncio.TaskGroup() as tasks:
        up = tasks.create_task(pump(client.reader.read, writer), name="to the API server")
        down = tasks.create_task(pump(reader.read, client.writer), name="from the API server")
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        down.cancel()
