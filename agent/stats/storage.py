"""What single pods have written to the node's disk: logs, their containers' own file systems, emptyDirs.

In: pods and their folders. Out: bytes. A folder is walked file by file: one that takes long to walk is walked the more
seldom, so that a pod with a million files does not keep the machine busy. Blocks: run it in a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from agent.model.pod import Pod
from agent.pods.logfiles import LogFiles
from agent.pods.volumes.layout import VolumePlugin, volume_dir
from agent.stats import disk

SHARE = 0.05
"""Of the time at most is spent on one folder."""


class LocalStorage(msgspec.Struct, frozen=True):
    """Bytes. Containers by name; volumes are emptyDirs on disk, by name."""

    logs: Mapping[str, int] = msgspec.field(default_factory=dict)
    written: Mapping[str, int] = msgspec.field(default_factory=dict)
    """To a container's own file system, as far as the runtime says so."""
    volumes: Mapping[str, int] = msgspec.field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(sum(part.values()) for part in (self.logs, self.written, self.volumes))


class StorageReader:
    def __init__(self, root_dir: Path, log_files: LogFiles, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._root = root_dir
        self._log_files = log_files
        self._monotonic = monotonic
        self._walked: dict[Path, tuple[float, int]] = {}
        """Folder to the moment of its next walk, and what the last one found."""

    def read(self, pods: Iterable[Pod], written: Mapping[str, Mapping[str, int]]) -> dict[str, LocalStorage]:
        """`written` is by pod's UID and container's name."""
        found = {}
        seen = set()
        for pod in pods:
            volumes = {}
            for volume in pod.spec.volumes:
                if volume.emptyDir is not None and not volume.emptyDir.medium:
                    folder = volume_dir(self._root, pod.uid, VolumePlugin.EMPTY_DIR, volume.name)
                    seen.add(folder)
                    volumes[volume.name] = self._walk(folder)
            logs = {
                container.name: disk.files(self._log_files.pod_folder(pod) / container.name)[0]
                for container in (*pod.spec.initContainers, *pod.spec.containers)
            }
            found[pod.uid] = LocalStorage(logs, written.get(pod.uid, {}), volumes)
        for gone in self._walked.keys() - seen:
            del self._walked[gone]
        return found

    def _walk(self, folder: Path) -> int:
        began = self._monotonic()
        due, used = self._walked.get(folder, (began, 0))
        if began < due:
            return used
        used, _ = disk.taken(folder)
        ended = self._monotonic()
        self._walked[folder] = (ended + (ended - began) / SHARE, used)
        return used
