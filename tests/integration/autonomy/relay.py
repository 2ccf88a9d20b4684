"""The way from one agent to its API server, which a test can cut in three manners while the control plane lives on.

A TCP relay on loopback in a thread of the test: bytes go both ways until `cut`, and again after `heal`. The agent's
kubeconfig names the relay; kubectl and the test go to the API server itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import subprocess
import threading
from collections.abc import Coroutine
from enum import StrEnum
from typing import Any

from hack.processes import free_port

ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER that closes with a reset."""


class Cut(StrEnum):
    REFUSED = "refused"
    """Connections are reset and new ones refused, as by a process that has stopped."""
    DROPPED = "dropped"
    """Packets vanish, by a rule of the machine's firewall on the relay's port alone."""
    SILENT = "silent"
    """Connections stand and are accepted, and no byte comes through; what was held comes with the healing."""


class Relay:
    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._open = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._how: Cut | None = None
        self._open.set()
        self._do(self._listen())

    def cut(self, how: Cut) -> None:
        self._how = how
        match how:
            case Cut.REFUSED:
                self._do(self._refuse())
            case Cut.SILENT:
                self._do(self._hold())
            case Cut.DROPPED:
                self._firewall("--insert")

    def heal(self) -> None:
        """Nothing where it is not cut."""
        how, self._how = self._how, None
        match how:
            case Cut.REFUSED:
                self._do(self._listen())
            case Cut.SILENT:
                self._do(self._release())
            case Cut.DROPPED:
                self._firewall("--delete")

    def close(self) -> None:
        self.heal()
        self._do(self._refuse())
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _firewall(self, change: str) -> None:
        for side in ("--dport", "--sport"):
            rule = f"INPUT --in-interface lo --protocol tcp {side} {self.port} --jump DROP"
            subprocess.run(["iptables", "--wait", change, *rule.split()], check=True, capture_output=True)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._writers):
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            writer.transport.abort()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _hold(self) -> None:
        self._open.clear()

    async def _release(self) -> None:
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass_on(reader, far_writer))
                tasks.create_task(self._pass_on(far_reader, writer))
        finally:
            self._writers -= {writer, far_writer}
            for end in (writer, far_writer):
                end.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                await self._open.wait()
                writer.write(piece)
                await writer.drain()
            await self._open.wait()
        writer.transport.abort() if writer.is_closing() else writer.close()
