"""Folders and files that a pod's mounts need on the host itself, made for as long as a pod uses them.

A container's mount needs something to lie on, and inside the host's folders the runtime would make it on the host and
leave it there. So they are made here, noted first (a power cut may come between), and removed with the last pod that
uses them, if they are still empty. What was there before the first pod is never noted, and so never removed.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from agent.durable_files import replace_file
from agent.pods.volumes.layout import pod_dir, pods_dir

_NOTE = "host-mountpoints"


class Mountpoints:
    """For all pods of a node; `root_dir` is the agent's. All methods block: call them in threads."""

    def __init__(self, root_dir: Path) -> None:
        self._root = root_dir.resolve()
        self._lock = threading.Lock()

    def make(self, uid: str, wanted: Mapping[str, bool]) -> None:
        """Paths on the host, and whether each is to be a folder (else a file). Raises OSError."""
        with self._lock:
            noted = self._noted(uid)
            others = self._others(uid)
            for path, is_folder in wanted.items():
                # The runtime follows links to find the place; so do we, or what is made could not be found again.
                place = Path(os.path.realpath(path))
                made = [str(p) for p in (place, *place.parents) if str(p) in others or not p.exists()]
                if new := [p for p in made if p not in noted]:
                    noted += new
                    self._note(uid, noted)
                folder = place if is_folder else place.parent
                folder.mkdir(mode=0o755, parents=True, exist_ok=True)
                if not is_folder:
                    with contextlib.suppress(FileExistsError):
                        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))

    def release(self, uid: str) -> None:
        """The pod's mounts are gone: remove what was made for it and no other pod uses. Raises OSError."""
        with self._lock:
            noted = self._noted(uid)
            if not noted:
                return
            others = self._others(uid)
            for path in sorted(noted, key=len, reverse=True):
                if path not in others:
                    _remove_empty(Path(path))
            self._file(uid).unlink(missing_ok=True)

    def _file(self, uid: str) -> Path:
        return pod_dir(self._root, uid) / _NOTE

    def _noted(self, uid: str) -> list[str]:
        return _lines(self._file(uid))

    def _others(self, uid: str) -> frozenset[str]:
        own = self._file(uid)
        notes = (note for note in pods_dir(self._root).glob(f"*/{_NOTE}") if note != own)
        return frozenset(path for note in notes for path in _lines(note))

    def _note(self, uid: str, paths: Iterable[str]) -> None:
        replace_file(self._file(uid), b"".join(os.fsencode(path) + b"\0" for path in paths))


def _lines(note: Path) -> list[str]:
    try:
        return [os.fsdecode(path) for path in note.read_bytes().split(b"\0") if path]
    except FileNotFoundError:
        return []


def _remove_empty(path: Path) -> None:
    """Whatever somebody put there meanwhile is theirs."""
    try:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        elif path.is_file() and path.stat().st_size == 0:
            path.unlink()
    except OSError:
        return
