"""A TCP relay on loopback that counts what a server really sent through it, and may be slow."""

from __future__ import annotations

import contextlib
import socket
import time
from threading import Thread
from types import TracebackType


class Counted:
    """Listens from construction to the end of the `with` block, in threads of its own."""

    def __init__(self, target: str, rate: int = 0) -> None:
        """`target`: HOST:PORT, which need not listen yet. `rate`: bytes a second on each connection; 0: no limit."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._rate = rate
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = 0
        """Bytes from the server to its clients."""
        Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._target) as server:
            Thread(target=self._forward, args=(client, server), daemon=True).start()
            while piece := server.recv(1 << 16):
                client.sendall(piece)
                self.sent += len(piece)
                if self._rate:
                    time.sleep(len(piece) / self._rate)
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _forward(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(1 << 16):
                server.sendall(piece)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
