"""Read a container's log as `kubectl logs` shows it.

In: a log file in CRI's format (one `TIME STREAM TAG text` a line), the options, and whether the container still runs.
Out: the text, in blocks. The file is read, cut and filtered in threads, a block at a time; following it costs nothing
between two writes. Like the kubelet it reads the container's current file, and follows into the next one on rotation.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from agent.errors import NotFound, Permanent
from agent.model.logs import LogOptions, LogStream
from agent.model.status import ContainerStatus, PodStatus
from agent.pods.folder_watch import FolderWatch, Happened

BLOCK_BYTES = 256 * 1024
LONGEST_LINE_BYTES = 16 * 1024 * 1024
"""A line is read whole up to here; what is longer is cut. containerd splits at 16 KiB unless it is told not to."""
LOOK_S = 1.0
"""Longest time between the end of a container and the end of a follower, where the runtime gave no sign."""
LOOK_CLOSED_S = 0.1
"""The same once the runtime has closed the file: the container has ended, or its log is being rotated."""
LATE_S = 0.1
"""So long after the first line of the next file one may still come into the rotated one: the runtime writes standard
output and standard error each at its own pace."""
GATHER_S = 0.01
"""Pause after a write, so that a chatty container costs a hundred looks a second and not one for each line."""

_LINE = re.compile(rb"^\d[^ \n]* std(?:out|err) ([^ \n]+) ([^\n]*\n?)", re.MULTILINE)
_TIMED_LINE = re.compile(
    rb"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) (stdout|stderr) ([^ \n]+) ([^\n]*\n?)",
    re.MULTILINE,
)
_LINE_END = re.compile(rb"^\d[^ \n]* std(?:out|err) (?!P[: ])[^ \n]+ [^\n]*\n", re.MULTILINE)
"""A CRI line that ends a line of the container's: everything but a partial one."""


def logged_container(pod_name: str, container: str, status: PodStatus, previous: bool) -> str:
    """The ID of the container whose log is meant, without its `containerd://`.

    Raises Permanent with the kubelet's words where there is none: not started yet, no predecessor.
    """
    found = next((s for s in status.all_containers if s.name == container), None)
    subject = f'container "{container}" in pod "{pod_name}"'
    if found is None:
        raise Permanent("BadRequest", f"{subject} is not available")
    container_id = _previous_id(found) if previous else _current_id(found)
    if container_id:
        return container_id.rpartition("://")[2]
    if previous:
        raise Permanent("BadRequest", f"previous terminated {subject} not found")
    if found.state.terminated is not None or found.lastState.terminated is not None:
        raise Permanent("BadRequest", f"{subject} is terminated")
    match found.state.waiting.reason if found.state.waiting is not None else "":
        case "":
            raise Permanent("BadRequest", f"{subject} is waiting to start - no logs yet")
        case "ErrImagePull":
            why = "image can't be pulled"
        case "ImagePullBackOff":
            why = "trying and failing to pull image"
        case reason:
            why = reason
    raise Permanent("BadRequest", f"{subject} is waiting to start: {why}")


def _previous_id(status: ContainerStatus) -> str:
    return status.lastState.terminated.containerID if status.lastState.terminated is not None else ""


def _current_id(status: ContainerStatus) -> str:
    """The running one, else the one that ended last: between two runs the last run's log is what people look for."""
    if status.state.running is not None:
        return status.containerID
    if status.state.terminated is not None and status.state.terminated.containerID:
        return status.state.terminated.containerID
    return _previous_id(status)


async def read_log(path: Path, options: LogOptions, is_running: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
    """The log's text in blocks, first an empty one as soon as the file is open.

    With `follow` it ends when `is_running` says no and everything is read, else at the file's present end. Close it
    (`contextlib.aclosing`) to leave early. Raises NotFound where there is no file.
    """
    reader = await asyncio.to_thread(_Reader, path, options)
    with ExitStack() as stack:
        stack.callback(reader.close)
        yield b""
        # The watch comes before the first look, so that no write falls between the two.
        watch = stack.enter_context(FolderWatch(reader.folder, LOOK_CLOSED_S)) if options.follow else None
        look_s = LOOK_S
        ended = False
        while not reader.is_full:
            moved, text = await asyncio.to_thread(reader.step, final=ended)
            if text:
                yield text
            if moved:
                look_s = LOOK_S
            elif watch is None or ended:
                return
            elif not is_running():
                ended = True  # one more look: it may have written between the last one and its end
            elif changes := await watch.changes(LATE_S if reader.is_rotated else look_s):
                if changes.get(reader.name, Happened(0)) & Happened.CLOSED:
                    look_s = LOOK_CLOSED_S
                await asyncio.sleep(GATHER_S)


class _Reader:
    """The open file and the place in it. `step` and `close` may be called from different threads."""

    def __init__(self, path: Path, options: LogOptions) -> None:
        try:
            self._path = path.resolve(strict=True)
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound(f"log file {path} does not exist") from error
        self.folder, self.name = self._path.parent, self._path.name
        self._follow = options.follow
        self._render = _Renderer(options)
        self._lock = threading.Lock()
        self._closed = False
        size = os.fstat(self._fd).st_size
        self._end = None if options.follow else size
        tail = options.tail_lines
        self._at = 0 if tail is None else tail_start(self._fd, size, tail)
        self._rotated_at: float | None = None
        """Monotonic: when the next file was first seen with a line in it."""

    @property
    def is_rotated(self) -> bool:
        """The next file has begun, and this one is only watched for what comes late."""
        return self._rotated_at is not None

    @property
    def is_full(self) -> bool:
        """limit_bytes is used up."""
        return self._render.left == 0

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._fd)

    def step(self, *, final: bool = False) -> tuple[bool, bytes]:
        """Go on by a block: whether there was anything new, and what of it is to be shown. Blocks.

        `final`: nothing is written any more, not even late.
        """
        with self._lock:
            if self._closed:
                return False, b""
            lines = self._lines()
            if not lines and self._follow:
                self._move_on(final)
                lines = self._lines()
            self._at += len(lines)
            return bool(lines), self._render(lines)

    def _lines(self) -> bytes:
        """The next whole lines; at the end of a file that is not followed also a line without its end."""
        size = BLOCK_BYTES
        while True:
            wanted = size if self._end is None else min(size, self._end - self._at)
            block = os.pread(self._fd, wanted, self._at)
            if cut := block.rfind(b"\n") + 1:
                return block[:cut]
            if len(block) < size:
                return b"" if self._follow else block
            if size >= LONGEST_LINE_BYTES:
                return block
            size *= 4

    def _move_on(self, final: bool) -> None:
        """At the end of the file: begin again where it was emptied, go to the next one where it was rotated."""
        mine = os.fstat(self._fd)
        if mine.st_size < self._at:
            self._at = 0
            return
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return  # moved away, the next one not yet made
        if (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino) or not there.st_size:
            return
        now = time.monotonic()
        self._rotated_at = self._rotated_at or now
        if (final or now - self._rotated_at >= LATE_S) and not self._lines():
            with suppress(FileNotFoundError):  # renamed between the two calls: found at the next look
                following = os.open(self._next(mine), os.O_RDONLY | os.O_CLOEXEC)
                os.close(self._fd)
                self._fd = following
                self._at, self._rotated_at = 0, None

    def _next(self, mine: os.stat_result) -> Path:
        """The file after this one: where rotation went on meanwhile, an older one than the container's current."""
        later = [
            (found.st_mtime_ns, path)
            for path in self._path.parent.glob(f"{self._path.name}.*")
            if path.suffix not in (".gz", ".tmp")
            and (found := path.stat()).st_ino != mine.st_ino
            and found.st_mtime_ns > mine.st_mtime_ns
        ]
        return min(later, default=(0, self._path))[1]


class _Renderer:
    """CRI lines to what is shown. Remembers whether the last text ended a line, and the bytes left."""

    def __init__(self, options: LogOptions) -> None:
        self.left = options.limit_bytes
        self._timestamps = options.timestamps
        self._since_ns = options.since_ns
        self._stream = None if options.stream is LogStream.ALL else options.stream.lower().encode()
        self._plain = not options.timestamps and options.since_ns is None and self._stream is None
        self._at_start = True

    def __call__(self, lines: bytes) -> bytes:
        if self._plain:
            text = b"".join([_text(tag, body) for tag, body in _LINE.findall(lines)])
        else:
            text = b"".join(self._chosen(lines))
        if self.left is not None:
            text = text[: self.left]
            self.left -= len(text)
        return text

    def _chosen(self, lines: bytes) -> list[bytes]:
        shown: list[bytes] = []
        for second, fraction, zone, stream, tag, body in _TIMED_LINE.findall(lines):
            if self._stream is not None and stream != self._stream:
                continue
            if self._since_ns is not None:
                whole = _unix_seconds(second + zone)
                if whole is None or whole * 10**9 + int(fraction.ljust(9, b"0")) < self._since_ns:
                    continue
            if self._timestamps and self._at_start:
                shown.append(b"%b.%b%b " % (second, fraction.ljust(9, b"0"), zone))
            text = _text(tag, body)
            shown.append(text)
            self._at_start = not text or text.endswith(b"\n")
        return shown


def _text(tag: bytes, body: bytes) -> bytes:
    """A partial line (tag P, perhaps with more tags after a colon) is joined with the next."""
    return body if tag == b"F" or tag.split(b":", 1)[0] != b"P" else body.removesuffix(b"\n")


@lru_cache(maxsize=256)
def _unix_seconds(text: bytes) -> int | None:
    try:
        return int(datetime.fromisoformat(text.decode()).timestamp())
    except ValueError:
        return None


def tail_start(fd: int, size: int, lines: int) -> int:
    """Where the last `lines` lines of the container begin; its own lines, each perhaps several of the file. Blocks.

    Reads backward a block at a time, so the cost is that of what will be shown.
    """
    if lines <= 0:
        return size
    wanted = lines
    position = size
    head = b""  # a line's end whose beginning is in the block before
    first = True
    while position > 0:
        start = max(0, position - BLOCK_BYTES)
        block = os.pread(fd, position - start, start) + head
        position = start
        cut = 0 if start == 0 else block.find(b"\n") + 1 or len(block)
        head = block[:cut] if cut <= LONGEST_LINE_BYTES else b""  # no line: what a power cut left
        ends = [match.end() for match in _LINE_END.finditer(block, cut)]
        if first and (end := block.rfind(b"\n") + 1) > cut:
            # The end of the file: a last line that is still partial is a line all the same; one torn is none.
            first = False
            if ends and ends[-1] == end:
                wanted += 1
        if len(ends) >= wanted:
            return start + ends[-wanted]
        wanted -= len(ends)
    return 0
