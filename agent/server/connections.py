"""Accept the connections of the node's API, and keep strangers from taking the machine's memory.

In: a listening socket and what makes a connection's protocol. Each one costs a buffer for TLS before anybody knows who
it is, so there are never more than LIMIT: the next one ends the oldest that is doing nothing, idle or in its
handshake. One with a request under way is never ended here. A handshake, and a request's head, must come in time.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

from aiohttp import web
from loguru import logger

LIMIT = 256
"""A kubelet's clients are a handful: the API server, a scraper or two, people at terminals."""
HANDSHAKE_S = 10.0
IDLE_S = 90.0
"""Also for a request's head to arrive. The kubelet's, longer than what API servers keep a connection for."""
ACCEPT_PAUSE_S = 0.5
LONGEST_REQUEST_LINE_BYTES = 256 * 1024
"""`kubectl exec` sends its command in the request's line, and Linux lets one argument have 128 KiB."""

SERVER = "edgelet"
"""Told to clients; the library would name itself with its version."""


class _Lines(logging.Handler):
    """The library tells each malformed request with a traceback: strangers must not be able to fill the log."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        cause = f": {type(error).__name__}" if error is not None else ""
        logger.debug("kubelet API: {}{}", record.getMessage(), cause)


def quiet_log() -> logging.Logger:
    log = logging.Logger("kubelet-api", logging.INFO)
    log.addHandler(_Lines())
    return log


class Exchange(web.RequestHandler):
    """One connection. What is no HTTP is refused in constant words."""

    __slots__ = ("is_busy",)

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop, log: logging.Logger) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=IDLE_S,
            max_line_size=LONGEST_REQUEST_LINE_BYTES,
            logger=log,
            access_log=None,  # type: ignore[arg-type]
        )
        self.is_busy = False
        """A request is under way."""

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self.is_busy = False

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the library and the request
    ) -> web.StreamResponse:
        logger.debug("kubelet API: {} to {}: {}", status, request.remote, type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("part of an answer is sent already")
        text = HTTPStatus(status).phrase
        response = web.Response(status=status, text=text, headers={"Server": SERVER})
        response.force_close()
        return response


class Connections:
    def __init__(self, server: web.Server, tls: Callable[[], ssl.SSLContext] | None) -> None:
        """`tls` is asked for each connection's context; None: without TLS."""
        self._server = server
        self._tls = tls
        self._log = quiet_log()
        self._handshakes: dict[asyncio.Task[None], None] = {}
        self._open: dict[Exchange, None] = {}
        """Oldest first."""

    async def accept(self, listener: socket.socket) -> None:
        """Until cancelled. Connections that are open then are the caller's to end, by the server."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    client, _ = await loop.sock_accept(listener)
                except ConnectionError:
                    continue
                except OSError as error:  # out of descriptors: what is open must end first
                    logger.warning("kubelet API: cannot accept: {}", error.strerror)
                    self._make_room(always=True)
                    await asyncio.sleep(ACCEPT_PAUSE_S)
                    continue
                self._make_room()
                task = tasks.create_task(self._shake_hands(client), name="handshake")
                self._handshakes[task] = None
                task.add_done_callback(self._shaken)

    def _shaken(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)

    async def _shake_hands(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        _watch(client)
        try:
            _, made = await loop.connect_accepted_socket(
                lambda: Exchange(self._server, loop, self._log),
                client,
                ssl=self._tls and self._tls(),
                ssl_handshake_timeout=HANDSHAKE_S if self._tls is not None else None,
            )
        except OSError as error:  # no TLS, or a certificate that is not the cluster's: not worth a line in the log
            logger.debug("kubelet API: no handshake: {}", error)
            client.close()
        except asyncio.CancelledError:
            client.close()
            raise
        else:
            self._open[made] = None

    def _make_room(self, always: bool = False) -> None:
        for exchange in [exchange for exchange in self._open if exchange.transport is None]:
            del self._open[exchange]
        if not always and len(self._open) + len(self._handshakes) < LIMIT:
            return
        # Who only connects, without a word, must not end connections that have shaken hands.
        idle = next((exchange for exchange in self._open if not exchange.is_busy), None)
        if idle is not None and len(self._handshakes) < LIMIT // 2:
            if isinstance(idle.transport, asyncio.WriteTransport):
                idle.transport.abort()
            del self._open[idle]
        elif self._handshakes:
            oldest = next(iter(self._handshakes))
            oldest.cancel()
            del self._handshakes[oldest]


def mark_busy(request: web.Request) -> None:
    """Its connection is not ended for another's sake, until the request is answered."""
    if isinstance(request.protocol, Exchange):
        request.protocol.is_busy = True


def _watch(client: socket.socket) -> None:
    """The kernel notices a client that is gone without a word within a minute."""
    with suppress(OSError):
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
