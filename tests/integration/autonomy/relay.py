"""The way from one agent to its API server, which a test can cut in three manners while the control plane lives on.

A TCP relay in a thread of the test, which listens in a network namespace of its own: bytes go both ways until `cut`,
and again after `heal`. The agent's kubeconfig names the relay; kubectl and the test go to the API server itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import subprocess
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from threading import Thread
from typing import Any

from hack.workspace import LINKS, Workspace

ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER that closes with a reset."""
CLONE_NEWNET = 0x40000000
LAST_BRIDGE = LINKS - 1
"""The workspace's, so that it takes away what a killed test leaves."""
PORT = 6443


class Cut(StrEnum):
    REFUSED = "refused"
    """Connections are reset and new ones refused, as by a process that has stopped."""
    DROPPED = "dropped"
    """Packets vanish in the relay's network namespace."""
    SILENT = "silent"
    """Connections stand and are accepted, and no byte comes through; what was held comes with the healing."""


class FarEnd:
    """A network namespace with one address, at the other end of a cable from this machine."""

    def __init__(self, workspace: Workspace) -> None:
        self.name = f"{workspace.name}-far"
        self._cable = workspace.bridge(LAST_BRIDGE)
        here = workspace.gateway(LAST_BRIDGE)
        self.address = here.removesuffix(".1") + ".2"
        self.close()
        _ip("netns", "add", self.name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "far", "netns", self.name)
        _ip("address", "add", f"{here}/24", "dev", self._cable)
        _ip("link", "set", self._cable, "up")
        _ip("-n", self.name, "address", "add", f"{self.address}/24", "dev", "far")
        _ip("-n", self.name, "link", "set", "far", "up")

    def listen(self, port: int) -> socket.socket:
        """A socket stays in the namespace that it was made in."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self._listen, port).result()

    def drop(self, everything: bool) -> None:
        for chain in ("INPUT", "OUTPUT"):
            policy = ("iptables", "--wait", "--policy", chain, "DROP" if everything else "ACCEPT")
            _ip("netns", "exec", self.name, *policy)

    def close(self) -> None:
        """Nothing where there is none. The cable goes with one of its ends."""
        if Path("/sys/class/net", self._cable).exists():
            _ip("link", "delete", self._cable)
        if Path("/run/netns", self.name).exists():
            _ip("netns", "delete", self.name)

    def _listen(self, port: int) -> socket.socket:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/run/netns", self.name).open() as namespace:
            # Of this thread alone, which ends with it.
            if libc.setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace.name)
        return socket.create_server((self.address, port))


class Relay:
    def __init__(self, far: FarEnd, target_port: int) -> None:
        self._far = far
        self.url = f"https://{self._far.address}:{PORT}"
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
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
                self._far.drop(True)

    def heal(self) -> None:
        """Nothing where it is not cut."""
        how, self._how = self._how, None
        match how:
            case Cut.REFUSED:
                self._do(self._listen())
            case Cut.SILENT:
                self._do(self._release())
            case Cut.DROPPED:
                self._far.drop(False)

    def close(self) -> None:
        self.heal()
        self._do(self._refuse())
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        listening = await asyncio.to_thread(self._far.listen, PORT)
        self._server = await asyncio.start_server(self._serve, sock=listening)

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


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
