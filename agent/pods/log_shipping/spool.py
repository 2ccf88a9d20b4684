"""All logs that are shipped from this node, and what waits of them: on disk, within a bound, over restarts.

In: pods with a sink, their log folders, and what sinks took. Out: batches, cursors for the record, what was lost.
The spool is a folder beside the pods' own (hard links need one file system). Files that a pod still has cost nothing;
what only the spool keeps is bounded, and over that the oldest file of all goes, counted. Methods block; any thread may
call them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
from loguru import logger

from agent.pods.log_shipping.container_log import ContainerLog, Cursor
from agent.pods.log_shipping.message import LOST_STREAM, LogLine
from agent.policies.log_sink import LogSink, parse_log_sink

BATCH_BYTES = 256 * 1024
FOLDER = ".edgelet-spool"
"""In the pods' log folder; whoever looks there for NAMESPACE_NAME_UID passes it by."""


class ContainerRow(msgspec.Struct, frozen=True):
    cursor: Cursor
    lost: int = 0


class PodRow(msgspec.Struct, frozen=True):
    """What the record holds of a pod's shipping."""

    namespace: str
    pod: str
    sink: str
    """The URL as it was written."""
    containers: dict[str, ContainerRow] = msgspec.field(default_factory=dict)


class Move(msgspec.Struct, frozen=True):
    """How far a batch brings one container."""

    uid: str
    container: str
    cursor: Cursor
    lost: int = 0
    """Dropped lines that the sink is told of."""


class Batch(msgspec.Struct, frozen=True):
    messages: tuple[bytes, ...]
    """None where a container's last lines were none."""
    moves: tuple[Move, ...]


class Loss(msgspec.Struct, frozen=True):
    uid: str
    namespace: str
    pod: str
    container: str
    lines: int


class Looked(msgspec.Struct, frozen=True):
    lost: tuple[Loss, ...]
    waiting: frozenset[LogSink]
    """The sinks that have something to be sent."""


class _Pod(msgspec.Struct):
    namespace: str
    name: str
    sink: LogSink
    live: Path
    followed: bool = False
    """Its worker lives: more may come."""
    logs: dict[str, ContainerLog] = msgspec.field(default_factory=dict)

    def row(self) -> PodRow:
        rows = {name: ContainerRow(log.confirmed, log.lost) for name, log in self.logs.items()}
        return PodRow(self.namespace, self.name, self.sink.text, rows)


class Spool:
    def __init__(
        self, logs: Path, node_name: str, limit_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`logs` is the folder of all pods' logs."""
        self._logs = logs
        self._node = node_name
        self._limit = limit_bytes
        self._clock = clock
        self._pods: dict[str, _Pod] = {}
        self._recorded: dict[str, PodRow] = {}
        self._turn: dict[LogSink, int] = {}
        self._lock = threading.Lock()
        self._troubled: set[str] = set()
        self.held_bytes = 0
        """What only the spool keeps, as of the last look."""

    # ------------------------------------------------------------ pods

    def load(self, rows: Mapping[str, PodRow]) -> None:
        """By UID, what an earlier agent left. Raises OSError."""
        with self._lock:
            for uid, row in rows.items():
                try:
                    sink = parse_log_sink(row.sink)
                except ValueError as error:
                    logger.warning("what waits of the logs of {}/{} is given up: {}", row.namespace, row.pod, error)
                    continue
                pod = _Pod(row.namespace, row.pod, sink, self._live(row.namespace, row.pod, uid))
                for name, kept in row.containers.items():
                    pod.logs[name] = self._open(uid, name, kept)
                self._pods[uid], self._recorded[uid] = pod, row
            self._remove_strays()

    def _open(self, uid: str, container: str, row: ContainerRow) -> ContainerLog:
        return ContainerLog(self._logs / FOLDER / uid / container, row.cursor, row.lost, self._clock)

    def _live(self, namespace: str, name: str, uid: str) -> Path:
        return self._logs / f"{namespace}_{name}_{uid}"

    def _remove_strays(self) -> None:
        """Links of pods that the record does not know: nobody could say where they go."""
        with suppress(FileNotFoundError):
            for folder in (self._logs / FOLDER).iterdir():
                if folder.name not in self._pods:
                    logger.warning("links to the logs of pod {} are removed: the record has no sink of it", folder.name)
                    for log in folder.iterdir():
                        self._open(folder.name, log.name, ContainerRow(Cursor())).release()
                    _remove_empty(folder)

    def follow(self, uid: str, namespace: str, name: str, sink: LogSink) -> None:
        """From now on everything that is and will be in the pod's log folder goes there."""
        with self._lock:
            pod = self._pods.get(uid)
            if pod is None:
                pod = self._pods[uid] = _Pod(namespace, name, sink, self._live(namespace, name, uid))
            pod.sink, pod.followed = sink, True

    def leave(self, uid: str) -> None:
        """Nobody wants this pod's log shipped any more: what waits of it is given up."""
        with self._lock:
            if pod := self._pods.pop(uid, None):
                for log in pod.logs.values():
                    log.release()
                _remove_empty(self._logs / FOLDER / uid)

    def gone(self, uid: str) -> None:
        """The pod's worker has ended; what waits goes on being sent."""
        with self._lock:
            if pod := self._pods.get(uid):
                pod.followed = False

    def claim(self, folder: Path) -> None:
        """Files of this pod's log folder are about to go or to be renamed: hold what is not held yet."""
        uid = folder.name.rpartition("_")[2]
        with self._lock:
            if pod := self._pods.get(uid):
                self._look(uid, pod)

    # ------------------------------------------------------------ looks

    def look(self) -> Looked:
        """Hold what is new, let go of what was sent, and of the oldest where it is too much."""
        with self._lock:
            for uid, pod in list(self._pods.items()):
                ended = not pod.live.is_dir()
                if not ended:
                    self._look(uid, pod)
                for name, log in list(pod.logs.items()):
                    if ended and not log.has_ended:
                        log.end()
                    log.has_ended = ended
                    log.tidy()
                    if log.is_empty and not pod.followed:
                        del pod.logs[name]
                if ended and not pod.followed and not pod.logs:
                    del self._pods[uid]
                    _remove_empty(self._logs / FOLDER / uid)
            return Looked(tuple(self._bound()), frozenset(self._waiting()))

    def _look(self, uid: str, pod: _Pod) -> None:
        try:
            with os.scandir(pod.live) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            for name in names:
                if (log := pod.logs.get(name)) is None:
                    log = pod.logs[name] = self._open(uid, name, ContainerRow(Cursor()))
                log.look(pod.live / name)
            self._troubled.discard(uid)
        except FileNotFoundError:
            return  # its logs have just gone
        except OSError as error:
            self._say_trouble(uid, f"the logs of {pod.namespace}/{pod.name} can't be held to be sent: {error}")

    def _say_trouble(self, uid: str, what: str) -> None:
        """Once, until a look at that pod goes well."""
        if uid not in self._troubled:
            logger.warning("{}", what)
        self._troubled.add(uid)

    def _bound(self) -> Iterator[Loss]:
        held = sum(log.held_bytes for _, _, log in self._all())
        while held > self._limit:
            ages = [(age, uid, name) for uid, name, log in self._all() if (age := log.oldest) is not None]
            if not ages:
                break
            _, uid, name = min(ages)
            pod = self._pods[uid]
            before = pod.logs[name].held_bytes
            lost = pod.logs[name].drop_oldest()
            held -= before - pod.logs[name].held_bytes
            if lost:
                yield Loss(uid, pod.namespace, pod.name, name, lost)
        self.held_bytes = held

    def _waiting(self) -> Iterator[LogSink]:
        return (pod.sink for pod in self._pods.values() if any(log.has_more for log in pod.logs.values()))

    def _all(self) -> Iterator[tuple[str, str, ContainerLog]]:
        for uid, pod in self._pods.items():
            for name, log in pod.logs.items():
                yield uid, name, log

    @property
    def is_idle(self) -> bool:
        """No pod is followed and nothing waits."""
        return not self._pods

    def pods_of(self, sink: LogSink) -> tuple[tuple[str, str, str], ...]:
        """(UID, namespace, name) of those whose logs go there."""
        with self._lock:
            return tuple((uid, pod.namespace, pod.name) for uid, pod in self._pods.items() if pod.sink == sink)

    # ------------------------------------------------------------ batches

    def batch(self, sink: LogSink, encode: Callable[[LogLine], bytes], limit_bytes: int = BATCH_BYTES) -> Batch | None:
        """What is next for a sink, up to about that much; None: nothing waits. Nothing counts as sent by it."""
        with self._lock:
            logs = [(uid, pod, name) for uid, pod in self._pods.items() if pod.sink == sink for name in pod.logs]
            # Each container has its turn to be first: a chatty one must not keep the others waiting.
            turn = self._turn.get(sink, 0) % max(1, len(logs))
            self._turn[sink] = turn + 1
            messages: list[bytes] = []
            moves: list[Move] = []
            left = limit_bytes
            for uid, pod, name in logs[turn:] + logs[:turn]:
                if left <= 0:
                    break
                left = self._fill(messages, moves, left, (uid, pod, name), encode)
            return Batch(tuple(messages), tuple(moves)) if moves else None

    def _fill(
        self,
        messages: list[bytes],
        moves: list[Move],
        left: int,
        of: tuple[str, _Pod, str],
        encode: Callable[[LogLine], bytes],
    ) -> int:
        """Take what is next of one container; how many bytes are left for others."""
        uid, pod, name = of
        log = pod.logs[name]
        at, lost = log.sent, log.lost
        if lost:
            text = f"{lost} lines of this log were dropped here: the spool was full, or they were too long to be taken"
            messages.append(encode(LogLine("", LOST_STREAM, text, pod.namespace, pod.name, uid, name, self._node)))
            left -= len(messages[-1])
        while left > 0:
            try:
                piece = log.read(at)
            except OSError as error:
                self._say_trouble(
                    f"{uid}/read", f"the log of {pod.namespace}/{pod.name} can't be read to be sent: {error}"
                )
                break
            at = piece.after
            for line in piece.lines:
                messages.append(
                    encode(LogLine(line.time, line.stream, line.text, pod.namespace, pod.name, uid, name, self._node))
                )
                left -= len(messages[-1])
                if left <= 0 and line.is_safe:
                    at = Cursor(piece.start.sequence, piece.start.offset + line.end)
                    break
            if not piece.lines:
                break
        if at != log.sent or lost:
            moves.append(Move(uid, name, at, lost))
        return left

    def sent(self, moves: Iterable[Move]) -> None:
        """The sink was given this much."""
        for log, move in self._logs_of(moves):
            if move.cursor.sequence >= log.confirmed.sequence:
                log.sent = move.cursor
            log.lost = max(0, log.lost - move.lost)

    def confirm(self, moves: Iterable[Move]) -> None:
        """The sink certainly has this much."""
        for log, move in self._logs_of(moves):
            if move.cursor.sequence >= log.confirmed.sequence:
                log.confirmed = move.cursor

    def skip(self, moves: Iterable[Move]) -> tuple[Loss, ...]:
        """The sink takes this one line never: it is lost."""
        lost: list[Loss] = []
        for log, move in self._logs_of(moves):
            log.sent = log.confirmed = max(log.confirmed, move.cursor)
            log.lost = 0 if move.lost else 1
            pod = self._pods[move.uid]
            lost.append(Loss(move.uid, pod.namespace, pod.name, move.container, log.lost))
        return tuple(lost)

    def back(self, sink: LogSink) -> None:
        """What the sink was given and may not have is sent again."""
        with self._lock:
            for pod in self._pods.values():
                if pod.sink == sink:
                    for log in pod.logs.values():
                        log.sent = log.confirmed

    def _logs_of(self, moves: Iterable[Move]) -> Iterator[tuple[ContainerLog, Move]]:
        with self._lock:
            for move in moves:
                pod = self._pods.get(move.uid)
                if pod is not None and (log := pod.logs.get(move.container)):
                    yield log, move

    # ------------------------------------------------------------ the record

    @property
    def has_new(self) -> bool:
        """There is a pod that the record knows nothing of."""
        return not self._pods.keys() <= self._recorded.keys()

    def changed_rows(self) -> dict[str, PodRow | None]:
        """By UID, what the record does not have yet; None: the row goes."""
        with self._lock:
            rows = {uid: pod.row() for uid, pod in self._pods.items()}
            changed: dict[str, PodRow | None] = {
                uid: row for uid, row in rows.items() if self._recorded.get(uid) != row
            }
            changed |= dict.fromkeys(self._recorded.keys() - rows.keys())
            return changed

    def recorded(self, rows: Mapping[str, PodRow | None]) -> None:
        """These are in the record now."""
        with self._lock:
            for uid, row in rows.items():
                if row is None:
                    self._recorded.pop(uid, None)
                else:
                    self._recorded[uid] = row


def _remove_empty(folder: Path) -> None:
    """With the folders of its containers; what is not empty stays."""
    with suppress(OSError):
        for inner in folder.iterdir():
            inner.rmdir()
        folder.rmdir()
