"""Exec and attach on a provider's own methods: what a client and a command say to each other, on SPDY or WebSocket.

In: an upgrade request, the streams that it asked for, and the command as a coroutine function. Out: the session; at its
end the client is told the exit code, or why there is none, as a v1.Status. A client that goes away cancels the command.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

import msgspec
from aiohttp import WSMsgType, web
from loguru import logger

from agent.errors import EdgeletError, Permanent
from agent.providers.streaming import AttachIO, ByteReader, ByteWriter, CommandOutput, Streams, TerminalSize
from agent.server.inlet import Inlet
from agent.server.log_query import BAD_REQUEST
from agent.server.spdy_session import Session, Stream, negotiated, switching, until_gone
from agent.server.takeover import Upgraded, hung_up, take_over

CREATION_S = 30.0
"""For a client to open its streams (the kubelet's)."""
FAREWELL_S = 5.0
"""For a client to take the last words and close. Closing first would cut them off where it still sends."""
SPDY_PROTOCOLS = ("v4.channel.k8s.io",)
WEBSOCKET_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_MESSAGE_LIMIT = 1024 * 1024
_PIECE_BYTES = 64 * 1024
OUTPUT_LIMIT = 16 * 1024 * 1024
"""Of a command whose whole output is asked for: what a runtime would give."""
_RESIZE_LIMIT = 4096
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255

Command = Callable[[AttachIO], Awaitable[int]]
"""Runs it to its end: the exit code."""


class _Output(ByteWriter, Protocol):
    async def write_eof(self) -> None: ...


class _IO(msgspec.Struct, frozen=True):
    """An AttachIO."""

    tty: bool
    stdin: ByteReader | None
    stdout: _Output | None
    stderr: _Output | None
    resize: ByteReader | None

    async def resizes(self) -> AsyncIterator[TerminalSize]:
        if self.resize is None:
            return
        decoder, text = json.JSONDecoder(), ""
        while block := await self.resize.read():
            text = (text + block.decode(errors="replace")).lstrip()
            while text:
                try:
                    size, end = decoder.raw_decode(text)
                except ValueError:
                    break
                text = text[end:].lstrip()
                if (found := _size(size)) is not None:
                    yield found
            if len(text) > _RESIZE_LIMIT:
                return


def _size(said: Any) -> TerminalSize | None:
    if not isinstance(said, dict):
        return None
    width, height = said.get("Width"), said.get("Height")
    if not isinstance(width, int) or not isinstance(height, int) or width < 1 or height < 1:
        return None
    return TerminalSize(width, height)


def status_of(exit_code: int) -> bytes:
    """A v1.Status in JSON, by which a client learns the exit code."""
    if exit_code == 0:
        return msgspec.json.encode({"metadata": {}, "status": "Success"})
    return _failure(
        "NonZeroExitCode",
        f"command terminated with non-zero exit code: exit status {exit_code}",
        {"causes": [{"reason": "ExitCode", "message": str(exit_code)}]},
    )


def status_of_error(message: str) -> bytes:
    details = {"causes": [{"message": message}]}
    return _failure("InternalError", f"Internal error occurred: {message}", {**details}, code=500)


def _failure(reason: str, message: str, details: dict[str, Any], **more: int) -> bytes:
    status = {"metadata": {}, "status": "Failure", "message": message, "reason": reason, "details": details, **more}
    return msgspec.json.encode(status)


def wants_version_5(request: web.Request) -> bool:
    """Whether it is the WebSocket protocol that runtimes do not know."""
    texts = request.headers.getall("Sec-WebSocket-Protocol", [])
    return WEBSOCKET_PROTOCOLS[0] in (word.strip() for text in texts for word in text.split(","))


async def serve(request: web.Request, streams: Streams, command: Command) -> web.StreamResponse:
    """The whole session, by SPDY or WebSocket as the client wants. Raises Permanent for neither."""
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return await _serve_websocket(request, streams, command)
    return await _serve_spdy(request, streams, command)


async def output_of(command: Command) -> CommandOutput:
    """Run it without input or terminal. Raises what the command raises."""
    stdout, stderr = _Collected(), _Collected()
    exit_code = await command(_IO(tty=False, stdin=None, stdout=stdout, stderr=stderr, resize=None))
    return CommandOutput(exit_code, bytes(stdout.kept + stderr.kept))


class _Collected:
    def __init__(self) -> None:
        self.kept = bytearray()

    async def write(self, data: bytes) -> None:
        self.kept += data[: OUTPUT_LIMIT - len(self.kept)]

    async def write_eof(self) -> None:
        """Nothing to tell."""


async def _outcome(command: Command, io: _IO, name: str) -> bytes:
    """Run the command; the Status that tells of its end. Errors of a provider must reach the client as such."""
    try:
        return status_of(await command(io))
    except EdgeletError as error:
        return status_of_error(str(error))
    except ConnectionError:
        return status_of_error("the client closed a stream that the command wrote to")
    except Exception as error:  # the boundary: a provider's fault ends one session, not the node
        logger.error("{}: {}: {}", name, type(error).__name__, error)
        return status_of_error("the node's provider failed, see the node's log")


async def _say_goodbye(command: Command, io: _IO, error: _Output, name: str) -> None:
    status = await _outcome(command, io, name)
    with suppress(ConnectionError):
        for output in (io.stdout, io.stderr):
            if output is not None:
                await output.write_eof()
        await error.write(status)
        await error.write_eof()


# ------------------------------------------------------------ SPDY


async def _serve_spdy(request: web.Request, streams: Streams, command: Command) -> web.StreamResponse:
    protocol = negotiated(request, SPDY_PROTOCOLS)
    if isinstance(protocol, web.Response):
        return protocol
    async with take_over(request) as connection, asyncio.TaskGroup() as tasks:
        connection.writer.write(switching(protocol))
        gathered = _Gathered(streams)
        session = Session(connection, gathered.opened)
        reading = tasks.create_task(session.run(), name="client")

        async def work() -> None:
            try:
                async with asyncio.timeout(CREATION_S):
                    await gathered.complete.wait()
            except TimeoutError:
                logger.warning("{}: the client did not open its streams within {:g} s", request.path, CREATION_S)
                return
            await _say_goodbye(command, gathered.io(), gathered.streams["error"], request.path)

        working = tasks.create_task(work(), name="command")
        await until_gone(reading, connection.hung_up, working)
        if working.done():
            await session.discard_all()
            await asyncio.wait((reading,), timeout=FAREWELL_S)
        working.cancel()
        reading.cancel()
    return Upgraded()


class _Gathered:
    """The streams of one session, until all are there."""

    def __init__(self, asked: Streams) -> None:
        wanted = {"stdin": asked.stdin, "stdout": asked.stdout, "stderr": asked.stderr, "resize": asked.tty}
        self._missing = {"error", *(name for name, is_wanted in wanted.items() if is_wanted)}
        self._tty = asked.tty
        self.streams: dict[str, Stream] = {}
        self.complete = asyncio.Event()

    def opened(self, stream: Stream) -> None:
        kind = stream.headers.get("streamtype", "")
        if kind in self._missing:
            self._missing.remove(kind)
            self.streams[kind] = stream
        if not self._missing:
            self.complete.set()

    def io(self) -> _IO:
        of = self.streams.get
        return _IO(self._tty, of("stdin"), of("stdout"), of("stderr"), of("resize"))


# ------------------------------------------------------------ WebSocket


class _Channel:
    """An output: messages that begin with its number."""

    def __init__(self, socket: web.WebSocketResponse, number: int) -> None:
        self._socket = socket
        self._number = bytes((number,))

    async def write(self, data: bytes) -> None:
        for at in range(0, max(len(data), 1), _PIECE_BYTES):
            await self._socket.send_bytes(self._number + data[at : at + _PIECE_BYTES])

    async def write_eof(self) -> None:
        """Channels end with the connection."""


async def _serve_websocket(request: web.Request, streams: Streams, command: Command) -> web.StreamResponse:
    socket = web.WebSocketResponse(protocols=WEBSOCKET_PROTOCOLS, compress=False, max_msg_size=_MESSAGE_LIMIT)
    ready = socket.can_prepare(request)
    if not ready.ok:
        raise Permanent(BAD_REQUEST, "not a WebSocket handshake")
    if ready.protocol is None:
        raise Permanent(BAD_REQUEST, f"Sec-WebSocket-Protocol must be one of {', '.join(WEBSOCKET_PROTOCOLS)}")
    await socket.prepare(request)
    inlets = {_RESIZE: Inlet()} | ({_STDIN: Inlet()} if streams.stdin else {})
    io = _IO(
        streams.tty,
        inlets.get(_STDIN),
        _Channel(socket, _STDOUT) if streams.stdout else None,
        _Channel(socket, _STDERR) if streams.stderr else None,
        inlets[_RESIZE] if streams.tty else None,
    )
    if not streams.tty:
        await inlets[_RESIZE].discard()
    error = _Channel(socket, _ERROR)
    # Clients take the first message, be it empty, for the sign that they are connected.
    with suppress(ConnectionError):
        await (io.stdout or io.stderr or error).write(b"")
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(_read_channels(socket, inlets), name="client")
        working = tasks.create_task(_say_goodbye(command, io, error, request.path), name="command")
        await until_gone(reading, lambda: hung_up(request.transport), working)
        working.cancel()
        reading.cancel()
    # The reader must be gone: closing waits for the client's own close, over what it still sends.
    await socket.close()
    return socket


async def _read_channels(socket: web.WebSocketResponse, inlets: dict[int, Inlet]) -> None:
    """Until the client goes away. In version 5 a message on the last channel closes the one that it names."""
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        number, payload = message.data[0], message.data[1:]
        if number == _CLOSE and payload and (closed := inlets.get(payload[0])) is not None:
            await closed.end()
        elif payload and (inlet := inlets.get(number)) is not None:
            await inlet.feed(payload)
