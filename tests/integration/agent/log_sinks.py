"""Sinks that logs are shipped to, which a test takes away and gives back at the same port."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hack.processes import free_port

_SYSLOG = re.compile(rb'<\d+>1 \S+ \S+ \S+ \S+ - \[\S+ .*pod="([^"]*)".* container="([^"]*)" stream="([^"]*)"\] (.*)')


class Sink:
    """What came, by pod and container, in the order in which it came, with what came twice."""

    scheme: str

    def __init__(self) -> None:
        self.port = free_port()
        self.lines: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.said: dict[tuple[str, str], list[str]] = defaultdict(list)
        """What the agent itself says."""
        self._server: socketserver.BaseServer | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def take(self, pod: str, container: str, stream: str, text: str) -> None:
        (self.said if stream == "edgelet" else self.lines)[pod, container].append(text)

    def up(self) -> None:
        self._server = server = self._make()
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def down(self) -> None:
        if (server := self._server) is not None:
            self._server = None
            server.shutdown()
            server.server_close()
            self._hang_up()

    def _make(self) -> socketserver.BaseServer:
        raise NotImplementedError

    def _hang_up(self) -> None:
        """End the connections that are open."""


class HttpSink(Sink):
    scheme = "http"

    def _make(self) -> socketserver.BaseServer:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for line in body.splitlines():
                    one: dict[str, Any] = json.loads(line)
                    sink.take(one["pod"], one["container"], one["stream"], one["log"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nobody reads it."""

        return ThreadingHTTPServer(("127.0.0.1", self.port), Handler)


class _Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class SyslogSink(Sink):
    scheme = "syslog+tcp"

    def __init__(self) -> None:
        super().__init__()
        self._open: set[socket.socket] = set()

    def _make(self) -> socketserver.BaseServer:
        sink = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                sink._open.add(self.connection)
                with suppress(OSError):
                    for message in counted(self.rfile.read):
                        if found := _SYSLOG.fullmatch(message):
                            sink.take(*(part.decode() for part in found.groups()))

        return _Tcp(("127.0.0.1", self.port), Handler)

    def _hang_up(self) -> None:
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._open.clear()


def counted(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The messages of a stream of octet-counted ones (RFC 6587), up to the last whole one."""
    while True:
        size = b""
        while (digit := read(1)).isdigit():
            size += digit
        if not size or len(message := read(int(size))) < int(size):
            return
        yield message
