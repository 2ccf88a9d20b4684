"""Be woken by the kernel when memory gets short, so that nobody has to look every moment.

In: which cgroups' use of memory is not to pass which number of bytes. Out: calls of `wake`. On version 1 a cgroup tells
when its use crosses a number; on version 2 that the pods' cgroup ran into its limit; on either the machine tells that
processes stand still for want of memory (PSI). A kernel that has none of it costs a look every ten seconds, no more.
Source: the kernel's cgroup-v1/memory.rst, cgroup-v2.rst and accounting/psi.rst.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from loguru import logger

from agent.pods.cgroups import CGROUP_FS, CgroupVersion, cgroup_version

STALLED = b"some 150000 2000000\0"
"""150 ms of 2 s: whole multiples of two seconds are free for everybody to ask for."""


class MemoryAlarm:
    """Used on the loop. `close` gives everything back."""

    def __init__(self, wake: Callable[[], None], mount: Path = CGROUP_FS, proc: Path = Path("/proc")) -> None:
        self._wake = wake
        self._mount = mount
        self._pressure = proc / "pressure/memory"
        self._poll = select.epoll()
        self._stalls: int | None = None
        self._limits: dict[PurePosixPath, int] = {}
        """Version 2: the open memory.events of a cgroup."""
        self._crossings: dict[PurePosixPath, tuple[int, int]] = {}
        """Version 1: the eventfd of a cgroup, and the bytes that it was asked for."""

    def open(self) -> None:
        # The loop asks for what can be read; these files say their news as urgent: a poll of our own can be read then.
        asyncio.get_running_loop().add_reader(self._poll.fileno(), self._rang)
        try:
            self._stalls = os.open(self._pressure, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            os.write(self._stalls, STALLED)
            self._poll.register(self._stalls, select.EPOLLPRI)
        except OSError as error:
            logger.debug("the kernel does not tell of stalls for memory: {}", error)

    def at(self, levels: Mapping[PurePosixPath, int]) -> None:
        """Ring when the memory used by one of these cgroups crosses its number of bytes."""
        if cgroup_version(self._mount) is CgroupVersion.V2:
            for path in levels.keys() - self._limits.keys():
                self._watch_limit(path)
            return
        for path, level in levels.items():
            known = self._crossings.get(path)
            if known is None or known[1] != level:
                self._forget(path)
                self._watch_crossing(path, level)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._poll.fileno())
        self._poll.close()
        for held in (*self._limits.values(), *(event for event, _ in self._crossings.values())):
            os.close(held)
        if self._stalls is not None:
            os.close(self._stalls)

    def _watch_limit(self, path: PurePosixPath) -> None:
        try:
            events = os.open(self._mount / path / "memory.events", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # the top has none; the pods' may come later
        os.pread(events, 4096, 0)
        self._poll.register(events, select.EPOLLPRI)
        self._limits[path] = events

    def _watch_crossing(self, path: PurePosixPath, level: int) -> None:
        folder = self._mount / "memory" / path
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            used = os.open(folder / "memory.usage_in_bytes", os.O_RDONLY | os.O_CLOEXEC)
            try:
                control = os.open(folder / "cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(control, f"{event} {used} {level}".encode())
                finally:
                    os.close(control)
            finally:
                os.close(used)
        except OSError as error:
            logger.debug("the kernel does not tell of the memory of cgroup /{}: {}", path, error)
            os.close(event)
            return
        self._poll.register(event, select.EPOLLIN)
        self._crossings[path] = (event, level)

    def _forget(self, path: PurePosixPath) -> None:
        if (known := self._crossings.pop(path, None)) is not None:
            self._poll.unregister(known[0])
            os.close(known[0])

    def _rang(self) -> None:
        events = {event for event, _ in self._crossings.values()}
        for file, _ in self._poll.poll(0):
            if file in events:
                os.eventfd_read(file)
            elif file != self._stalls:
                try:
                    os.pread(file, 4096, 0)  # read, it rings again
                except OSError:  # the cgroup is gone
                    self._drop(file)
        self._wake()

    def _drop(self, file: int) -> None:
        self._poll.unregister(file)
        os.close(file)
        self._limits = {path: held for path, held in self._limits.items() if held != file}
