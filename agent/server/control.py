"""What the machine's owner asks of the running agent, over a socket in its root folder that root alone may open.

In: `edgelet drain`. Out: its progress, line by line, as it comes. Whoever asked may go away: what was begun goes on.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from aiohttp import web
from loguru import logger

from agent.node.shutdown import Period, Shutdown, log_progress

SOCKET = "agent.sock"
_LONGEST_ADDRESS = 104
"""A socket's address has 108 bytes with its end."""


class DrainOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """`periods`: (priority, seconds), lowest first; none: as the agent's settings have it."""

    undo: bool = False
    periods: tuple[tuple[int, int], ...] = ()


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    line: str = ""
    ended: bool | None = None
    """The last one: whether all pods ended in their time."""


class ControlServer:
    def __init__(self, root_dir: Path, shutdown: Shutdown, by: Sequence[Period]) -> None:
        """`by`: the time that pods have where an order says nothing."""
        self._path = root_dir.absolute() / SOCKET
        self._shutdown = shutdown
        self._by = by
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        """Serve until cancelled. A folder that can't have a socket is said once, and nothing else suffers by it."""
        try:
            listener = await asyncio.to_thread(_listener, self._path)
        except OSError as error:
            logger.warning("edgelet drain can't reach this agent: {}: {}", self._path, error.strerror)
            return
        app = web.Application()
        app.router.add_post("/drain", self._drain)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await web.SockSite(runner, listener).start()
                await asyncio.get_running_loop().create_future()
        finally:
            await runner.cleanup()
            with suppress(OSError):
                self._path.unlink()

    async def _drain(self, request: web.Request) -> web.StreamResponse:
        try:
            order = msgspec.json.decode(await request.read(), type=DrainOrder)
        except msgspec.DecodeError as error:
            return web.Response(status=400, text=str(error))
        lines: asyncio.Queue[Progress] = asyncio.Queue()
        if order.undo:
            self._shutdown.call_off()
            lines.put_nowait(Progress("the node takes pods again, and runs those that it has", ended=True))
        else:
            by = tuple(Period(*one) for one in order.periods) or self._by
            self._tasks.create_task(self._end(by, lines), name="drain")
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                progress = await lines.get()
                await response.write(msgspec.json.encode(progress) + b"\n")
                if progress.ended is not None:
                    break
        return response

    async def _end(self, by: Sequence[Period], lines: asyncio.Queue[Progress]) -> None:
        def tell(line: str) -> None:
            log_progress(line)
            lines.put_nowait(Progress(line))

        lines.put_nowait(Progress(ended=await self._shutdown.begin(by, tell)))


@contextmanager
def address_of(path: Path) -> Iterator[str]:
    """A name of the socket that fits into a socket's address, however deep it lies. Raises OSError."""
    if len(os.fsencode(path)) < _LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _listener(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        path.unlink()  # of an agent that was killed
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with address_of(path) as address:
            made.bind(address)
        path.chmod(0o600)  # before anybody can connect
        made.listen()
    except OSError:
        made.close()
        raise
    made.setblocking(False)
    return made
