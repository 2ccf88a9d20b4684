"""Bundles of images: archives that somebody puts into a folder, imported once each and kept as long as they lie there.

In: the folder. Out: images in the runtime, and what became of each file. One that is still written is waited for; one
that is no good is refused, named, and not read again until it changes; it holds up no other.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from loguru import logger

from agent.cri._generated import api_pb2
from agent.errors import EdgeletError, Permanent
from agent.model.objects import ObjectReference
from agent.pods.folder_watch import FolderWatch
from agent.pods.ports import Events
from agent.pods.prefetch.pins import Bundle, Pins
from agent.pods.prefetch.told import BundleStatus, State, shortened

SETTLE_S = 1.0
"""A file that nobody writes is taken once it was the same for so long."""
SETTLE_UNKNOWN_S = 5.0
"""The same on a file system that does not say who writes."""
QUIET_S = 0.5
"""At least between two looks."""
LOOK_S = 300.0
"""How often it is seen whether the images are still there."""
RETRY_S = 15.0
MISSING_S = 5.0


class Import(Protocol):
    async def run(self, path: Path) -> tuple[str, ...]:
        """The names of its images. Raises Permanent: the bundle is no good; Retryable, OSError."""


class ImageStatus(Protocol):
    async def image_status(self, image: api_pb2.ImageSpec) -> api_pb2.Image | None: ...


class _Seen(msgspec.Struct):
    size: int
    mtime_ns: int
    since: float
    """Monotonic seconds: unchanged from then on."""
    retry_at: float = 0.0
    checked_at: float | None = None
    """When its images were last seen in the runtime."""


class Bundles:
    def __init__(
        self,
        folder: Path,
        images: ImageStatus,
        importer: Callable[[], Import],
        pins: Pins,
        events: Events,
        about: ObjectReference,
        changed: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`importer` is made when the first file comes. `changed` is called when `statuses` are others, `about`: the
        Node.
        """
        self._folder = folder
        self._images = images
        self._make_importer = importer
        self._importer: Import | None = None
        self._pins = pins
        self._events = events
        self._about = about
        self._changed = changed
        self._monotonic = monotonic
        self._seen: dict[str, _Seen] = {}
        self._statuses: dict[str, BundleStatus] = {}

    @property
    def statuses(self) -> Sequence[BundleStatus]:
        return [self._statuses[file] for file in sorted(self._statuses)]

    async def run(self) -> None:
        """For as long as the agent lives; also where the folder goes, and comes again."""
        said = ""
        while True:
            try:
                await asyncio.to_thread(_make, self._folder)
                with FolderWatch(self._folder, RETRY_S) as watch:
                    said = ""
                    while self._folder.is_dir():
                        await watch.changes(await self.look())
                        await asyncio.sleep(QUIET_S)  # one that is being copied changes all the time
            except OSError as error:
                if str(error) != said:
                    logger.warning("--image-bundles {}: {}", self._folder, error.strerror or error)
                said = str(error)
                await asyncio.sleep(MISSING_S)

    async def look(self) -> float:
        """Take what is complete, drop what is gone; in how many seconds to look again. Raises OSError."""
        found = await asyncio.to_thread(_files, self._folder)
        for file in {*self._seen, *self._pins.bundles} - found.keys():
            self._seen.pop(file, None)
            if self._statuses.pop(file, None) is not None:
                self._changed()
            await self._pins.drop_bundle(file)
        waits = [LOOK_S]
        for file, (size, mtime_ns) in sorted(found.items()):
            waits.append(await self._look_at(file, size, mtime_ns))
        return min(waits)

    async def _look_at(self, file: str, size: int, mtime_ns: int) -> float:
        now = self._monotonic()
        seen = self._seen.get(file)
        if seen is None or (seen.size, seen.mtime_ns) != (size, mtime_ns):
            seen = self._seen[file] = _Seen(size, mtime_ns, now)
        known = self._pins.bundles.get(file)
        if known is not None and (known.size, known.mtime_ns) == (size, mtime_ns):
            if known.error:
                self._show(BundleStatus(file, State.REFUSED, message=known.error))
                return LOOK_S
            if seen.checked_at is not None and now - seen.checked_at < LOOK_S:
                return LOOK_S - (now - seen.checked_at)
            if await self._are_present(known.images):
                seen.checked_at = now
                self._show(BundleStatus(file, State.IMPORTED, known.images))
                return LOOK_S
        if now < seen.retry_at:
            return seen.retry_at - now
        writers = await asyncio.to_thread(_is_written, self._folder / file)
        settled_at = seen.since + (SETTLE_UNKNOWN_S if writers is None else SETTLE_S)
        if writers or now < settled_at:
            return max(SETTLE_S / 2, settled_at - now) if writers else settled_at - now
        await self._take(file, seen)
        return LOOK_S if not seen.retry_at else RETRY_S

    async def _take(self, file: str, seen: _Seen) -> None:
        self._show(BundleStatus(file, State.IMPORTING))
        if self._importer is None:
            self._importer = self._make_importer()
        logger.info("the images of {} are imported", self._folder / file)
        try:
            images = await self._importer.run(self._folder / file)
        except Permanent as error:
            # Where the file became another one meanwhile, it is looked at again as that.
            await self._pins.put_bundle(file, Bundle(seen.size, seen.mtime_ns, error=shortened(str(error))))
            self._events.record(
                self._about, "Warning", "ImageBundleRefused", f"Image bundle {file} is refused: {error}"
            )
            self._show(BundleStatus(file, State.REFUSED, message=shortened(str(error))))
        except (EdgeletError, OSError) as error:
            message = (error.strerror if isinstance(error, OSError) else None) or str(error)
            seen.retry_at = self._monotonic() + RETRY_S
            self._events.record(
                self._about, "Warning", "ImageBundleFailed", f"Image bundle {file} is not imported yet: {message}"
            )
            self._show(BundleStatus(file, State.FAILED, message=shortened(message)))
        else:
            seen.retry_at, seen.checked_at = 0.0, self._monotonic()
            await self._pins.put_bundle(file, Bundle(seen.size, seen.mtime_ns, images))
            self._events.record(
                self._about, "Normal", "ImageBundleImported", f"Image bundle {file} is imported: {', '.join(images)}"
            )
            self._show(BundleStatus(file, State.IMPORTED, images))

    async def _are_present(self, images: Iterable[str]) -> bool:
        for image in images:
            try:
                if await self._images.image_status(api_pb2.ImageSpec(image=image)) is None:
                    return False
            except EdgeletError:
                return True  # nobody can tell: the next look will
        return True

    def _show(self, status: BundleStatus) -> None:
        if self._statuses.get(status.file) != status:
            self._statuses[status.file] = status
            self._changed()


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)


def _files(folder: Path) -> Mapping[str, tuple[int, int]]:
    """Size and time of last change by name."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                found[entry.name] = (status.st_size, status.st_mtime_ns)
    return found


def _is_written(path: Path) -> bool | None:
    """Whether anybody has the file open for writing; None: this file system does not tell.

    The kernel gives a read lease only on a file that nobody writes.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True  # gone, or not for us: the next look will tell
    try:
        # Who opens it for writing just now has a signal sent to us; the usual one would end the process.
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    finally:
        os.close(file)
    return False
