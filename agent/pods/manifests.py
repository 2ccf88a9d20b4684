"""The static pods of this node: a folder of manifests, or a single file, followed.

In: the folder or file. Out: the complete set of its pods each time it changes, well within a second. A file that cannot
be used is told in one line, once, and keeps the pods that it last gave, also over a restart of the agent; no other file
suffers by it. A folder that goes away takes no pod with it: only a file's removal does.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import msgspec
from loguru import logger

from agent.clock import Clock, SystemClock
from agent.errors import ConfigError, Permanent
from agent.model import labels
from agent.model.record import Origin, PodRecord
from agent.pods.folder_watch import FolderWatch, Happened
from agent.pods.static_pods import ManifestSource, static_pods

LOOK_S = 0.5
"""How often the folder is read where the kernel tells nothing, and how often a missing folder is looked for."""
QUIET_S = 0.02
"""A change that comes with others, as an editor's rename does, is taken with them."""
WRITING_S = 0.5
"""A file that is being written is waited for this long."""


class ManifestSet(msgspec.Struct, frozen=True):
    """All static pods of a folder at one moment; a pod's annotation `io.edgelet.manifest` names its file."""

    pods: tuple[PodRecord, ...]
    errors: tuple[str, ...]
    """One line for each file that cannot be used as it is. They were logged already."""


async def watch_manifests(
    folder: Path, node_name: str, known: Iterable[PodRecord] = (), clock: Clock | None = None
) -> AsyncGenerator[ManifestSet, None]:
    """The folder's pods now and after every change, for ever. While it is missing: what was known, and an error.

    `known` are the static pods of the record: what a file gave before it became unusable, and since when it is known.
    A path that is a file is that one manifest. Raises ConfigError where it is neither.
    """
    manifests = ManifestFolder(folder, node_name, known)
    clock = clock or SystemClock()
    last: ManifestSet | None = None
    while True:
        try:
            watch = FolderWatch(manifests.folder, LOOK_S)
        except NotADirectoryError as error:
            if not manifests.take_file():
                raise ConfigError(f"--pod-manifest-path {folder}: is neither a folder nor a file") from error
            continue
        except FileNotFoundError:
            if (found := manifests.missing()) != last:
                last = found
                yield found
            await clock.sleep(LOOK_S)
            continue
        with watch:
            changed: _Changed | None = _Changed()
            while changed is not None:
                if (without := manifests.without(changed.deleted)) is not None:
                    yield without
                    last = without
                read = await asyncio.to_thread(manifests.read, clock.wall())
                if read is not None and read != last:
                    last = read
                    yield read
                changed = await _changed(watch)


class _Changed(msgspec.Struct, frozen=True):
    deleted: frozenset[str] = frozenset()
    """Names of files that were deleted, whether or not they are there again."""


async def _changed(watch: FolderWatch) -> _Changed | None:
    """Wait for a change and until it is complete. None: the folder is gone."""
    loop = asyncio.get_running_loop()
    changes = await watch.changes(None)
    began = loop.time()
    writing: set[str] = set()
    deleted: set[str] = set()
    while changes:
        for name, what in changes.items():
            if what & Happened.FOLDER_WENT and not name:
                return None
            if what & Happened.DELETED:
                deleted.add(name)
            if what & (Happened.CLOSED | Happened.WENT | Happened.MOVED_IN):
                writing.discard(name)
            elif what & (Happened.WRITTEN | Happened.MADE):
                writing.add(name)
        left_s = began + WRITING_S - loop.time()
        if left_s <= 0:
            break
        changes = await watch.changes(left_s if writing else min(QUIET_S, left_s))
    return _Changed(frozenset(deleted))


class _File(msgspec.Struct):
    content: bytes | None = None
    """As last read; None: it could not be."""
    pods: tuple[PodRecord, ...] = ()
    """The last good ones."""
    error: str = ""


class ManifestFolder:
    """What each file of the folder last gave. `read` blocks; one caller at a time."""

    def __init__(self, folder: Path, node_name: str, known: Iterable[PodRecord] = ()) -> None:
        self.folder = folder.absolute()
        self._only = ""
        """Not empty: the one file of the folder that counts."""
        self._node_name = node_name
        self._files: dict[Path, _File] = {}
        self._told: set[str] = set()
        for record in known:
            path = (record.pod.metadata.annotations or {}).get(labels.MANIFEST)
            # An API pod may carry this annotation too: anybody can write one there.
            if path is not None and record.origin is Origin.FILE and not record.is_terminating:
                self._files.setdefault(Path(path), _File()).pods += (record,)

    def take_file(self) -> bool:
        """The path is a file's: watch it where it lies. False: it is something else."""
        if not self.folder.is_file():
            return False
        self.folder, self._only = self.folder.parent, self.folder.name
        return True

    def read(self, unix_s: float) -> ManifestSet | None:
        """Read the folder again; None where it is gone."""
        try:
            paths = [path for path in self.folder.iterdir() if self._counts(path.name)]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return self._set(f"{self.folder}: cannot be read: {error.strerror}")
        # Who has a pod keeps it: of two files that name the same one, the one that gave it before is served first.
        paths.sort(key=lambda path: (not (path in self._files and self._files[path].pods), path))
        before, self._files = self._files, {}
        for path in paths:
            if (file := self._read_file(path, before.get(path, _File()), unix_s)) is not None:
                self._files[path] = file
        return self._set()

    def without(self, deleted: Iterable[str]) -> ManifestSet | None:
        """What stands without these files, which somebody deleted and perhaps wrote anew: their pods end first.

        None: they had no pods.
        """
        gone = {path for name in deleted if (path := self.folder / name) in self._files and self._files[path].pods}
        if not gone:
            return None
        self._files = {path: file for path, file in self._files.items() if path not in gone}
        return self._set()

    def _counts(self, name: str) -> bool:
        return name == self._only if self._only else not _is_scratch(name)

    def missing(self) -> ManifestSet:
        """What stands while there is no folder: what stood before."""
        return self._set(f"{self.folder}: no such folder; static pods stay as they are until it is there")

    def _read_file(self, path: Path, before: _File, unix_s: float) -> _File | None:
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                return None  # a folder, a socket; opening a FIFO would wait for ever
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            return _File(None, before.pods, f"{path}: cannot be read: {error.strerror}")
        if content == before.content:
            return before
        try:
            pods = static_pods(content, ManifestSource(path), self._node_name, unix_s)
        except Permanent as error:
            kept = "; its last good pods stay" if before.pods else ""
            return _File(content, before.pods, f"{path}: {error}{kept}")
        # An unchanged pod stays the very record, with the time at which it was first seen.
        same = {record.uid: record for record in before.pods}
        return _File(content, tuple(same.get(record.uid, record) for record in pods))

    def _set(self, *more_errors: str) -> ManifestSet:
        owners: dict[str, Path] = {}
        pods: list[PodRecord] = []
        errors = list(more_errors)
        for path, file in self._files.items():
            if file.error:
                errors.append(file.error)
            for record in file.pods:
                if (owner := owners.setdefault(record.pod.full_name, path)) == path:
                    pods.append(record)
                else:
                    errors.append(f"{path}: metadata.name: pod {record.pod.full_name} is in {owner} already")
        for error in errors:
            if error not in self._told:
                logger.error("manifest {}", error)
        self._told = set(errors)
        return ManifestSet(tuple(sorted(pods, key=lambda record: record.pod.full_name)), tuple(sorted(errors)))


def _is_scratch(name: str) -> bool:
    """Editors' and tools' temporary files, by the names that they give them; 4913 is vim's."""
    return name.startswith((".", "#")) or name.endswith(("~", ".swp", ".swx", ".tmp", ".bak")) or name == "4913"
