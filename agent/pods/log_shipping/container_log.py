"""One container's log as a row of files that nobody can take away: hard links to what the runtime writes.

In: the files in the container's log folder. Out: its lines from a cursor on, in order. A link holds a file's content
whatever becomes of its other name: renamed by rotation, compressed, removed with its container or pod. A link goes when
everything in it has reached the sink. All methods block; `Spool` calls them one at a time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
from loguru import logger

from agent.pods.log_shipping.lines import Line, count, parse

BLOCK_BYTES = 64 * 1024
LONGEST_BYTES = 1024 * 1024
"""What is joined to one line at most; a longer one comes in pieces."""
LATE_S = 0.5
"""So long after the next file was first seen a line may still come into the one before it."""
_DISK_BLOCK = 4096
_TRIES = 3
_RUN = re.compile(r"(\d+)\.log(?:\.(\d{8}-\d{6}))?")
_CURRENT = "~"
"""After every date."""
_LINK = re.compile(r"(\d{8,})\.(\d+)")


class Cursor(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A place in a container's log."""

    sequence: int = 0
    """Of the file: they are numbered in the order in which they were written."""
    offset: int = 0
    """Bytes."""


class Segment(msgspec.Struct):
    sequence: int
    attempt: int
    path: Path
    device: int
    inode: int
    size: int
    seen_at: float
    """Monotonic."""
    held: bool = False
    """Nothing else keeps this file any more: it takes room that would be free without the spool."""

    @property
    def room(self) -> int:
        """Bytes on the disk."""
        return -(-self.size // _DISK_BLOCK) * _DISK_BLOCK


class Piece(NamedTuple):
    lines: list[Line]
    start: Cursor
    """The lines' ends count from here."""
    after: Cursor


class ContainerLog:
    """`confirmed` is how far the sink certainly has it, `sent` how far it was given."""

    def __init__(self, folder: Path, confirmed: Cursor, lost: int, clock: Callable[[], float]) -> None:
        """`folder` is where the links are. Raises OSError."""
        self.folder = folder
        self.confirmed = self.sent = confirmed
        self.lost = lost
        """Lines that were dropped and of which the sink has not been told."""
        self.has_ended = False
        """The pod is gone: nothing is written any more."""
        self._clock = clock
        self._next = confirmed.sequence
        self._segments: list[Segment] = sorted(self._found(), key=lambda one: one.sequence)
        if self._segments:
            self._next = max(self._next, self._segments[-1].sequence + 1)

    def _found(self) -> Iterator[Segment]:
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                if name := _LINK.fullmatch(entry.name):
                    stat = entry.stat(follow_symlinks=False)
                    path = Path(entry.path)
                    yield Segment(
                        int(name[1]), int(name[2]), path, stat.st_dev, stat.st_ino, stat.st_size, 0.0, stat.st_nlink < 2
                    )

    # ------------------------------------------------------------ files that come and go

    def look(self, live: Path) -> None:
        """Hold what is new in the container's own folder, and learn sizes. Raises OSError."""
        for _ in range(_TRIES):
            if self._take(live):
                return

    def _take(self, live: Path) -> bool:
        """False: files were renamed meanwhile, and what came first is not known."""
        known = {(one.device, one.inode): one for one in self._segments}
        there: set[tuple[int, int]] = set()
        new: list[tuple[int, str, Path, tuple[int, int]]] = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(live) as entries:
            for entry in entries:
                name = _RUN.fullmatch(entry.name)
                if name is None or not entry.is_file(follow_symlinks=False):
                    continue
                try:
                    stat = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    return False
                identity = (stat.st_dev, stat.st_ino)
                there.add(identity)
                if segment := known.get(identity):
                    segment.size = stat.st_size
                else:
                    new.append((int(name[1]), name[2] or _CURRENT, Path(entry.path), identity))
        for attempt, _, path, identity in sorted(new):
            if not self._hold(attempt, path, identity):
                return False
        for one in self._segments:
            if not one.held and (one.device, one.inode) not in there:
                self._measure(one)
        return True

    def _hold(self, attempt: int, path: Path, identity: tuple[int, int]) -> bool:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        link = self.folder / f"{self._next:08d}.{attempt}"
        try:
            os.link(path, link, follow_symlinks=False)
        except FileNotFoundError:
            return False
        stat = link.stat()
        if (stat.st_dev, stat.st_ino) != identity:
            link.unlink()
            return False
        self._segments.append(Segment(self._next, attempt, link, *identity, stat.st_size, self._clock()))
        self._next += 1
        return True

    def _measure(self, segment: Segment) -> None:
        with suppress(FileNotFoundError):
            stat = segment.path.stat()
            segment.size, segment.held = stat.st_size, stat.st_nlink < 2

    def end(self) -> None:
        """The pod is gone, its files too."""
        self.has_ended = True
        for segment in self._segments:
            self._measure(segment)

    def tidy(self) -> None:
        """Let go of what the sink has. Of a pod that lives a file stays known as long as it has its other name."""
        for one in [one for one in self._segments if (one.held or self.has_ended) and self._is_done(one)]:
            self._release(one)

    def release(self) -> None:
        """Let go of everything."""
        for one in list(self._segments):
            self._release(one)

    def _release(self, segment: Segment) -> None:
        self._segments.remove(segment)
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:  # found again, and sent again, after a restart
            logger.warning("a log that was sent stays in the spool: {}", error)

    @property
    def held_bytes(self) -> int:
        return sum(one.room for one in self._segments if one.held)

    @property
    def oldest(self) -> float | None:
        """When the first file that only the spool keeps was last written, in Unix seconds; None: there is none."""
        held = self._first_held()
        try:
            return None if held is None else held.path.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def drop_oldest(self) -> int:
        """The spool is full: give its first file up. The lines that the sink may not have of it."""
        if (segment := self._first_held()) is None:
            return 0
        start = self.confirmed.offset if segment.sequence == self.confirmed.sequence else 0
        lost = 0 if segment.sequence < self.confirmed.sequence else _count(segment.path, start)
        self.lost += lost
        self._release(segment)
        after = Cursor(segment.sequence + 1, 0)
        self.confirmed, self.sent = max(self.confirmed, after), max(self.sent, after)
        return lost

    def _first_held(self) -> Segment | None:
        return next((one for one in self._segments if one.held), None)

    # ------------------------------------------------------------ lines

    @property
    def has_more(self) -> bool:
        """Something to send, or to find finished."""
        if self.lost:
            return True
        segment = self._at(self.sent)
        if segment is None:
            return False
        if segment.size != self._offset(segment, self.sent):
            return True
        return self._is_over(segment) and self._after(segment) is not None

    @property
    def is_empty(self) -> bool:
        """Ended, and the sink has everything."""
        return self.has_ended and not self._segments and not self.lost

    def read(self, at: Cursor) -> Piece:
        """The next lines after a cursor; none where there are none yet. `after` may be in a later file all the same."""
        while True:
            if (segment := self._at(at)) is None:
                return Piece([], at, at)
            at = Cursor(segment.sequence, self._offset(segment, at))
            try:
                piece, over = self._read_file(segment, at)
            except FileNotFoundError:  # somebody emptied the spool
                logger.warning("log {} is gone before it was sent", segment.path)
                self._segments.remove(segment)
                continue
            if piece.lines or not over or (later := self._after(segment)) is None:
                return piece
            at = Cursor(later.sequence, 0)

    def _read_file(self, segment: Segment, at: Cursor) -> tuple[Piece, bool]:
        """The next lines of this file, and whether it is over after them."""
        size = BLOCK_BYTES
        with segment.path.open("rb", buffering=0) as file:
            end = os.fstat(file.fileno()).st_size
            if end < at.offset:  # it was emptied in place: what is written now is new
                at = Cursor(at.sequence, 0)
            while True:
                block = os.pread(file.fileno(), size, at.offset)
                reached = at.offset + len(block)
                segment.size = max(end, reached)
                over = reached >= end and self._is_over(segment)
                if longest := len(block) >= LONGEST_BYTES and not over:
                    block = block[: block.rfind(b"\n") + 1] or block
                lines, used = parse(block, whole=over or longest)
                if used or reached >= end or longest:
                    return Piece(lines, at, Cursor(at.sequence, at.offset + used)), over
                size *= 4

    def _at(self, cursor: Cursor) -> Segment | None:
        return next((one for one in self._segments if one.sequence >= cursor.sequence), None)

    def _after(self, segment: Segment) -> Segment | None:
        return next((one for one in self._segments if one.sequence > segment.sequence), None)

    def _offset(self, segment: Segment, cursor: Cursor) -> int:
        return cursor.offset if segment.sequence == cursor.sequence else 0

    def _is_over(self, segment: Segment) -> bool:
        """Nothing is written into it any more."""
        later = self._after(segment)
        if later is None:
            return self.has_ended
        return self.has_ended or self._clock() - later.seen_at >= LATE_S

    def _is_done(self, segment: Segment) -> bool:
        if segment.sequence != self.confirmed.sequence:
            return segment.sequence < self.confirmed.sequence
        return self._is_over(segment) and self.confirmed.offset >= segment.size


def _count(path: Path, offset: int) -> int:
    found, rest = 0, b""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while block := file.read(BLOCK_BYTES):
                block = rest + block
                cut = block.rfind(b"\n") + 1
                found, rest = found + count(block[:cut]), block[cut:]
    except OSError as error:
        logger.warning("the lines of {} that were dropped can't be counted: {}", path, error)
    return found
