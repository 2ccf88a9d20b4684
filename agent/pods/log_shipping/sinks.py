"""Where batches of log lines go: HTTP, syslog over UDP, TCP and TLS, a file of this machine.

In: a sink's URL and encoded lines. Out: nothing, once they are taken. Raises Retryable where the other side is away or
overloaded, Permanent where it refuses: both mean that nothing was taken, and the same lines come again.
"""

from __future__ import annotations

import asyncio
import fcntl
import gzip
import os
import socket
import ssl
import stat
import struct
import termios
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from typing import Protocol

import aiohttp
from yarl import URL

from agent import __version__
from agent.errors import Permanent, Retryable
from agent.kube.rest import checked_socket
from agent.pods.log_shipping.message import LogLine, as_counted, as_datagram, as_json
from agent.policies.log_sink import LogSink, SinkKind

CALL_S = 30.0
CONNECT_S = 10.0
UNCERTAIN_S = 5.0
"""A syslog server never says that it has read something. What its machine has acknowledged counts once the connection
has lived this much longer; when it breaks before, it is sent again."""
LOOK_S = 0.01
TOO_LARGE = "TooLarge"
"""Reason of a refusal that fewer lines at once may escape."""
FILE_BYTES = 10 * 2**20
FILES = 5
"""Of a file sink: the file itself and FILE.1 to FILE.4, the newest first."""


class Carrier(Protocol):
    """One sink's other end."""

    uncertain_s: float
    """So long after `send` it may still turn out that nothing was taken: `is_well` says."""

    def encode(self, line: LogLine) -> bytes: ...

    async def send(self, messages: Sequence[bytes]) -> None:
        """Raises Retryable, Permanent."""

    def is_well(self) -> bool:
        """False: the connection broke after `send`."""

    async def close(self) -> None: ...


def carrier(sink: LogSink) -> Carrier:
    """Inside the running loop. Nothing is connected or opened before the first batch."""
    match sink.kind:
        case SinkKind.HTTP | SinkKind.HTTPS:
            return HttpSink(sink)
        case SinkKind.SYSLOG_TCP | SinkKind.SYSLOG_TLS:
            return SyslogStream(sink)
        case SinkKind.SYSLOG_UDP:
            return SyslogDatagrams(sink)
        case SinkKind.FILE:
            return FileSink(Path(sink.target))


class _Certain:
    """What was taken is taken."""

    uncertain_s = 0.0

    def is_well(self) -> bool:
        return True


class HttpSink(_Certain):
    def __init__(self, sink: LogSink) -> None:
        self._sink = sink
        self._url = URL(sink.url, encoded=True)
        self._headers = {"User-Agent": f"edgelet/{__version__}", "Content-Type": "application/x-ndjson"}
        if sink.gzip:
            self._headers["Content-Encoding"] = "gzip"
        if sink.login is not None:
            self._headers["Authorization"] = f"Basic {b64encode(':'.join(sink.login).encode()).decode()}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, socket_factory=checked_socket),
            timeout=aiohttp.ClientTimeout(total=CALL_S, sock_connect=CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def encode(self, line: LogLine) -> bytes:
        return as_json(line)

    async def send(self, messages: Sequence[bytes]) -> None:
        body = b"".join(messages)
        if self._sink.gzip:
            body = await asyncio.to_thread(gzip.compress, body, 6)
        try:
            # A redirect is not followed: it would take the password, and the lines, to somebody else.
            async with self._session.post(
                self._url, data=body, headers=self._headers, allow_redirects=False
            ) as response:
                status, headers = response.status, response.headers
                await response.content.read(1024)
        except TimeoutError as error:
            raise Retryable("no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable(" ".join(str(error).split()) or type(error).__name__) from error
        if status in (408, 429) or status >= 500:
            raise Retryable(f"it answered {status}", retry_after(headers))
        if status == 413:
            raise Permanent(TOO_LARGE, "it answered 413")
        if status >= 300:
            raise Permanent("LogsRefused", f"it answered {status}")

    async def close(self) -> None:
        await self._session.close()


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time) -> float | None:
    """Seconds; None where the header is missing or can't be read."""
    text = headers.get("Retry-After", "").strip()
    try:
        return max(0.0, float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - now())
    except ValueError:
        return None


class _Connection(asyncio.Protocol):
    """A connection that is only written to; what the other side says is read and thrown away."""

    def __init__(self) -> None:
        self.lost = ""
        self.changed = asyncio.Event()
        """Buffers may be empty now, or it broke."""

    def eof_received(self) -> bool:
        self._lose("it closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(f"the connection broke: {exc}" if exc else "it closed the connection")

    def resume_writing(self) -> None:
        self.changed.set()

    def _lose(self, why: str) -> None:
        self.lost = self.lost or why
        self.changed.set()


class SyslogStream:
    uncertain_s = UNCERTAIN_S

    def __init__(self, sink: LogSink) -> None:
        self._sink = sink
        self._transport: asyncio.Transport | None = None
        self._connection = _Connection()

    def encode(self, line: LogLine) -> bytes:
        return as_counted(line)

    async def send(self, messages: Sequence[bytes]) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                transport = await self._connected()
            async with asyncio.timeout(CALL_S):
                transport.writelines(messages)
                await self._flushed(transport)
        except TimeoutError as error:
            self._drop()
            raise Retryable(str(error) or "no answer in time") from error
        except OSError as error:
            self._drop()
            raise Retryable(error.strerror or str(error)) from error
        except asyncio.CancelledError:
            self._drop()
            raise

    def is_well(self) -> bool:
        return self._transport is not None and not self._connection.lost

    async def close(self) -> None:
        self._drop()

    async def _connected(self) -> asyncio.Transport:
        if self._transport is not None and not self._connection.lost:
            return self._transport
        self._drop()
        loop = asyncio.get_running_loop()
        self._connection = _Connection()
        is_tls = self._sink.kind is SinkKind.SYSLOG_TLS
        tls = await asyncio.to_thread(ssl.create_default_context) if is_tls else None
        self._transport, _ = await loop.create_connection(
            lambda: self._connection, self._sink.host, self._sink.port, ssl=tls
        )
        self._transport.set_write_buffer_limits(0)
        return self._transport

    async def _flushed(self, transport: asyncio.Transport) -> None:
        """Return once the other machine has acknowledged every byte. Raises OSError where the connection broke."""
        connection, made = self._connection, transport.get_extra_info("socket")
        empty = 0
        # Below TLS there is one more buffer that nobody shows: it is empty too when the kernel's is so twice.
        while not connection.lost and empty < 2:
            if transport.get_write_buffer_size():
                connection.changed.clear()
                await connection.changed.wait()
            empty = 0 if _unacknowledged(made) else empty + 1
            await asyncio.sleep(LOOK_S)
        if not connection.lost:
            return
        raise OSError(connection.lost)

    def _drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None


def _unacknowledged(made: socket.socket) -> int:
    """Bytes in the kernel's send queue."""
    return int(struct.unpack("i", fcntl.ioctl(made.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])


class SyslogDatagrams(_Certain):
    """Nobody acknowledges a datagram: what the kernel took counts as sent."""

    def __init__(self, sink: LogSink) -> None:
        self._sink = sink
        self._socket: socket.socket | None = None

    def encode(self, line: LogLine) -> bytes:
        return as_datagram(line)

    async def send(self, messages: Sequence[bytes]) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self._socket is None:
                self._socket = await self._open(loop)
            for message in messages:
                await loop.sock_sendall(self._socket, message)
        except OSError as error:
            await self.close()
            raise Retryable(error.strerror or str(error)) from error

    async def _open(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        """Connected, so that a refusal that comes back is heard of."""
        found = await loop.getaddrinfo(self._sink.host, self._sink.port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
        try:
            await loop.sock_connect(made, address)
        except OSError:
            made.close()
            raise
        return made

    async def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class FileSink(_Certain):
    """Appends JSON lines, and keeps five files of 10 MiB."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def encode(self, line: LogLine) -> bytes:
        return as_json(line)

    async def send(self, messages: Sequence[bytes]) -> None:
        try:
            await asyncio.to_thread(_append, self._path, b"".join(messages))
        except OSError as error:
            raise Retryable(error.strerror or str(error)) from error

    async def close(self) -> None:
        return


def _append(path: Path, text: bytes) -> None:
    """All of it, durably, or nothing. Raises OSError."""
    _rotate(path)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is not a regular file")
        try:
            left = memoryview(text)
            while left:
                left = left[os.write(fd, left) :]
            os.fdatasync(fd)
        except OSError:
            os.ftruncate(fd, found.st_size)
            raise
    finally:
        os.close(fd)


def _rotate(path: Path) -> None:
    try:
        if os.lstat(path).st_size < FILE_BYTES:
            return
    except FileNotFoundError:
        return
    for number in range(FILES - 1, 0, -1):
        newer = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
        if newer.exists():
            newer.replace(path.with_name(f"{path.name}.{number}"))
