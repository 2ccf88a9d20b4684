"""Rotate the logs of running containers: a look at their sizes now and then, a rename, a word to the runtime.

In: which containers run and where they log. Out: files as `rotation_plan` says. A look is one stat a container; what
is large is compressed by one thread that has the lowest priority. An ended container writes no more: its log stays as
it is and goes with the container.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
from loguru import logger
from msgspec.structs import replace

from agent.errors import EdgeletError
from agent.pods.garbage.rotation_plan import GZ, TMP, Rotation, excess, plan_rotation, unfinished

_BLOCK = 256 * 1024
_LOWEST_PRIORITY = 19
_TIGHT_FILES = 2
_TIGHT_SHARE = 10
T = TypeVar("T")


class LogRules(msgspec.Struct, frozen=True):
    max_bytes: int = 10 * 2**20
    """The size from which a log is rotated; less than 0: never."""
    max_files: int = 5
    every_s: float = 10.0

    @property
    def tight(self) -> LogRules:
        """For a disk that is nearly full: smaller files, and no more than one beside the current."""
        return replace(self, max_bytes=self.max_bytes // _TIGHT_SHARE, max_files=_TIGHT_FILES)


class RunningLog(msgspec.Struct, frozen=True):
    container_id: str
    path: Path


class Reopens(Protocol):
    async def reopen_container_log(self, container_id: str) -> None: ...


class LogRotation:
    """`running` names the containers that run now, each time anew."""

    def __init__(
        self,
        runtime: Reopens,
        running: Callable[[], Iterable[RunningLog]],
        rules: LogRules,
        clock: Callable[[], datetime] = datetime.now,
        going: Callable[[Path], None] = lambda _: None,
    ) -> None:
        """`going` is called in a thread, with the pod's folder, before a file of it is renamed or removed."""
        self._runtime = runtime
        self._running = running
        self._rules = rules
        self._clock = clock
        self._going = going
        self._seen: set[str] = set()
        """Containers whose folder was looked through for what an earlier agent left unfinished."""
        self._troubled: set[str] = set()
        self._turn = asyncio.Lock()
        self._packer: ThreadPoolExecutor | None = None

    @property
    def is_on(self) -> bool:
        return self._rules.max_bytes >= 0

    async def run(self) -> None:
        """As long as the agent lives."""
        while self.is_on:
            await self.look(self._rules)
            await asyncio.sleep(self._rules.every_s)

    async def reclaim(self) -> None:
        """The disk is short: rotate smaller files, and keep fewer."""
        if self.is_on:
            tight = self._rules.tight
            await self.look(tight)
            async with self._turn:
                for log in self._running():
                    await self._try(log, self._trim(log, tight.max_files))

    async def look(self, rules: LogRules) -> None:
        async with self._turn:
            logs = list(self._running())
            here = {log.container_id for log in logs}
            new = [log for log in logs if log.container_id not in self._seen]
            self._seen = here
            self._troubled &= here
            sizes = await asyncio.to_thread(_sizes, logs, new)
            full: list[RunningLog] = []
            for log, size in zip(logs, sizes, strict=True):
                if size is None:
                    # Somebody removed it: the container goes on writing where nobody finds it, and the disk fills.
                    await self._try(log, self._runtime.reopen_container_log(log.container_id))
                elif size >= max(1, rules.max_bytes):
                    full.append(log)
            packed = [(log, await self._try(log, self._rotate(log, rules))) for log in full]
            for log, names in packed:
                await self._try(log, self._compress(log, names or ()))

    async def _try(self, log: RunningLog, work: Awaitable[T]) -> T | None:
        """One that can't be rotated holds up no other; it is said once and tried at the next look."""
        try:
            done = await work
        except (EdgeletError, OSError) as error:
            if log.container_id not in self._troubled:
                logger.warning("log {} is not rotated: {}", log.path, error)
            self._troubled.add(log.container_id)
            return None
        self._troubled.discard(log.container_id)
        return done

    async def _rotate(self, log: RunningLog, rules: LogRules) -> tuple[str, ...]:
        """The files that may be compressed now."""
        plan = await asyncio.to_thread(self._begin, log.path, rules.max_files, self._clock())
        try:
            await self._runtime.reopen_container_log(log.container_id)
        except EdgeletError:
            # It still writes into the file by its new name: the old name is where it is looked for.
            await asyncio.to_thread(_back, log.path.with_name(plan.move_to), log.path)
            raise
        return plan.compress

    async def _compress(self, log: RunningLog, names: Iterable[str]) -> None:
        for name in names:
            if self._packer is None:
                self._packer = ThreadPoolExecutor(1, "pack-logs", _be_nice)
            await asyncio.get_running_loop().run_in_executor(self._packer, compress, log.path.with_name(name))

    async def _trim(self, log: RunningLog, most: int) -> None:
        await asyncio.to_thread(self._trim_now, log.path, most)

    def _begin(self, path: Path, most: int, now: datetime) -> Rotation:
        self._going(path.parent.parent)
        plan = plan_rotation(path.name, os.listdir(path.parent), most, now)
        for name in plan.remove:
            path.with_name(name).unlink(missing_ok=True)
        path.rename(path.with_name(plan.move_to))
        return plan

    def _trim_now(self, path: Path, most: int) -> None:
        self._going(path.parent.parent)
        for name in excess(path.name, os.listdir(path.parent), most):
            path.with_name(name).unlink(missing_ok=True)


def _sizes(logs: Sequence[RunningLog], new: Iterable[RunningLog]) -> list[int | None]:
    """Bytes; None: there is no such file. Of new containers what was left unfinished goes."""
    for log in new:
        with suppress(OSError):
            for name in unfinished(log.path.name, os.listdir(log.path.parent)):
                log.path.with_name(name).unlink(missing_ok=True)
    return [_size(log.path) for log in logs]


def _size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None
    except OSError:
        return 0  # not ours to judge


def _back(moved: Path, path: Path) -> None:
    if not path.exists():
        moved.rename(path)


def _be_nice() -> None:
    """Of this thread alone: to Linux each thread has a priority."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)


def compress(path: Path) -> None:
    """Make `path` into `path.gz`, of the same time and rights; whole, or not at all. Raises OSError."""
    import gzip  # where no log was ever full, nobody needs it

    tmp, packed = path.with_name(path.name + TMP), path.with_name(path.name + GZ)
    try:
        found = path.stat()
        with path.open("rb") as text, tmp.open("wb") as out:
            os.fchmod(out.fileno(), found.st_mode & 0o777)
            os.fchown(out.fileno(), found.st_uid, found.st_gid)
            with gzip.GzipFile("", "wb", fileobj=out, mtime=found.st_mtime) as archive:
                shutil.copyfileobj(text, archive, _BLOCK)
        os.utime(tmp, ns=(found.st_atime_ns, found.st_mtime_ns))
        tmp.rename(packed)
    except FileNotFoundError:
        return  # the container was removed meanwhile, with its logs
    finally:
        tmp.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
