"""Port-forward on a provider's own method: each connection is a pair of SPDY streams, its data and its errors.

In: an upgrade request and the method. Out: one call of it for each connection, side by side, until the client goes
away, which cancels them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import web
from loguru import logger

from agent.errors import EdgeletError
from agent.providers.streaming import ByteStream
from agent.server.spdy_session import Session, Stream, negotiated, switching, until_gone
from agent.server.takeover import Upgraded, take_over

PROTOCOLS = ("portforward.k8s.io",)
PAIRS_WAITING_LIMIT = 100

Forward = Callable[[int, ByteStream], Awaitable[None]]
"""Carry one connection to this port, until it ends."""


async def serve(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The whole session."""
    protocol = negotiated(request, PROTOCOLS)
    if isinstance(protocol, web.Response):
        return protocol
    async with take_over(request) as connection, asyncio.TaskGroup() as tasks:
        connection.writer.write(switching(protocol))
        waiting: dict[str, Stream] = {}
        running: set[asyncio.Task[None]] = set()

        def opened(stream: Stream) -> None:
            if (pair := _paired(stream, waiting)) is not None:
                task = tasks.create_task(_carry(forward, *pair, request.path), name="forwarded connection")
                running.add(task)
                task.add_done_callback(running.discard)

        reading = tasks.create_task(Session(connection, opened).run(), name="client")
        await until_gone(reading, connection.hung_up)
        for task in (reading, *running):
            task.cancel()
    return Upgraded()


def _paired(stream: Stream, waiting: dict[str, Stream]) -> tuple[Stream, Stream] | None:
    """Data and error stream of one connection, once both are there."""
    # A client that numbers no connections opens the error stream first, and the data stream right after it.
    is_data = stream.headers.get("streamtype") == "data"
    request_id = stream.headers.get("requestid") or f"stream {stream.stream_id - 2 if is_data else stream.stream_id}"
    other = waiting.pop(request_id, None)
    if other is None:
        waiting[request_id] = stream
        while len(waiting) > PAIRS_WAITING_LIMIT:  # their other half never came
            del waiting[next(iter(waiting))]
        return None
    return (stream, other) if is_data else (other, stream)


async def _carry(forward: Forward, data: Stream, error: Stream, name: str) -> None:
    text = data.headers.get("port", "")
    try:
        if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536):
            problem = f"{text!r} is not a port"
        else:
            problem = await _problem(forward, int(text), data, name)
        if problem:
            await error.write(f"error forwarding port {text}: {problem}".encode())
            await data.reset()
        else:
            await data.write_eof()
        await error.write_eof()
    except ConnectionError:
        pass  # the client went away
    finally:
        await data.inlet.discard()


async def _problem(forward: Forward, port: int, data: Stream, name: str) -> str:
    """Why the connection could not be carried to its end; empty where it was."""
    try:
        with suppress(ConnectionError):  # one side closed on the other: what every connection may end in
            await forward(port, data)
    except EdgeletError as error:
        return str(error)
    except Exception as error:  # the boundary: a provider's fault ends one connection, not the node
        logger.error("{}: {}: {}", name, type(error).__name__, error)
        return "the node's provider failed, see the node's log"
    return ""
