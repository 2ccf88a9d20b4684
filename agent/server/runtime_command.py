"""Exec and attach at the runtime's streaming server for a client that speaks what the runtime does not.

In: the session's URL and an AttachIO. Out: the command's exit code. Runtimes know no version 5 of the WebSocket
protocol, so the agent speaks that with the client, and SPDY with the runtime, as a kubelet does.
"""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress
from typing import Any

import msgspec

from agent.errors import EdgeletError, Permanent, Retryable
from agent.providers.streaming import AttachIO, ByteReader, ByteWriter, Streams
from agent.server.dial import dial
from agent.server.spdy_session import PROTOCOL, PROTOCOL_VERSION, Session, Stream

_UPGRADE = ("Connection: Upgrade", f"Upgrade: {PROTOCOL}", f"{PROTOCOL_VERSION}: v4.channel.k8s.io")


class _Wire:
    def __init__(self, server: socket.socket, received: bytes) -> None:
        self._server = server
        self._received = received
        self._turn = asyncio.Lock()

    async def read(self, limit: int = 65536) -> bytes:
        if self._received:
            taken, self._received = self._received, b""
            return taken
        return await asyncio.get_running_loop().sock_recv(self._server, limit)

    async def write(self, data: bytes) -> None:
        async with self._turn:
            await asyncio.get_running_loop().sock_sendall(self._server, data)


async def run_at(url: str, streams: Streams, io: AttachIO) -> int:
    """Raises Permanent or Retryable with the runtime's words where the command could not be run."""
    dialled = await dial(url, "POST", _UPGRADE)
    try:
        if dialled.status != 101:
            raise Permanent("", dialled.rest.decode(errors="replace").strip() or f"status {dialled.status}")
        async with asyncio.TaskGroup() as tasks:
            session = Session(_Wire(dialled.server, dialled.rest))
            pumps = [tasks.create_task(session.run(), name="runtime")]
            try:
                status = await _conduct(session, streams, io, tasks, pumps)
            except OSError as lost:
                raise Retryable(f"the runtime ended the session: {lost}") from lost
            finally:
                for pump in pumps:
                    pump.cancel()
        return exit_code(status)
    except ExceptionGroup as group:
        _raise_ours(group)
        raise
    finally:
        dialled.server.close()


async def _conduct(
    session: Session, streams: Streams, io: AttachIO, tasks: asyncio.TaskGroup, pumps: list[asyncio.Task[None]]
) -> bytes:
    """The command's status, once all of its output has been handed on. What goes to it is added to `pumps`."""
    error = await session.open({"streamtype": "error"})
    if streams.stdin and io.stdin is not None:
        pumps.append(tasks.create_task(_send(io.stdin, await session.open({"streamtype": "stdin"})), name="stdin"))
    outputs = []
    for name, is_asked, sink in (("stdout", streams.stdout, io.stdout), ("stderr", streams.stderr, io.stderr)):
        if is_asked and sink is not None:
            output = await session.open({"streamtype": name})
            outputs.append(tasks.create_task(_copy(output, sink), name=name))
    if streams.tty:
        pumps.append(tasks.create_task(_tell_sizes(io, await session.open({"streamtype": "resize"})), name="resize"))
    status = await _all(error)
    for copied in outputs:
        await copied
    return status


def exit_code(status: bytes) -> int:
    """Of a v1.Status in JSON. Raises Permanent where it says that the command was not run, Retryable for none."""
    if not status:
        raise Retryable("the runtime ended the session without saying how the command ended")
    try:
        told = msgspec.json.decode(status, type=dict[str, Any])
        causes = (told.get("details") or {}).get("causes") or []
        if told.get("status") == "Success":
            return 0
        if told.get("reason") == "NonZeroExitCode":
            return next(int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode")
        why = next((str(cause["message"]) for cause in causes if cause.get("message")), str(told.get("message")))
    except (ValueError, LookupError, AttributeError, TypeError, StopIteration) as error:
        raise Permanent("", "the runtime told the command's end in words that are not understood") from error
    raise Permanent("", why)


def _raise_ours(group: ExceptionGroup[Exception]) -> None:
    """A task group wraps what its body raised."""
    ours = group.subgroup(EdgeletError)
    while ours is not None:
        first = ours.exceptions[0]
        if not isinstance(first, ExceptionGroup):
            raise first from group
        ours = first


async def _send(source: ByteReader, stdin: Stream) -> None:
    with suppress(OSError):  # it takes no more; its last words are read all the same
        while block := await source.read():
            await stdin.write(block)
        await stdin.write_eof()


async def _copy(output: Stream, sink: ByteWriter) -> None:
    while block := await output.read():
        await sink.write(block)


async def _tell_sizes(io: AttachIO, resize: Stream) -> None:
    with suppress(OSError):
        async for size in io.resizes():
            await resize.write(json.dumps({"Width": size.width, "Height": size.height}).encode() + b"\n")


async def _all(error: Stream) -> bytes:
    status = b""
    while block := await error.read():
        status += block
    return status
