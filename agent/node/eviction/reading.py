"""Read what is left of the machine: a few short files and a statvfs for each file system, nothing of any single pod.

In: the machine's size, its folders and cgroups. Out: observations by signal; what cannot be read is left out. Blocks
for moments: run it in a thread.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from agent.node.eviction.signals import Observation, Signal
from agent.node.facts import MachineFacts, nearest_existing
from agent.stats.cgroups import Cgroups

IMAGE_DIR = Path("/var/lib/containerd")
"""Where images are until the runtime says it."""
_TOP = PurePosixPath()


class SignalReader:
    def __init__(
        self, facts: MachineFacts, root_dir: Path, cgroups: Cgroups | None = None, proc: Path = Path("/proc")
    ) -> None:
        self._facts = facts
        self._root = root_dir
        self._proc = proc
        self.cgroups = cgroups or Cgroups()

    def read(self, image_dir: Path | None, pods: PurePosixPath | None) -> dict[Signal, Observation]:
        """`pods` is the cgroup of all pods together; None: not known yet."""
        found: dict[Signal, Observation | None] = {
            Signal.MEMORY: self._memory(),
            Signal.ALLOCATABLE_MEMORY: None if pods is None else self._allocatable(pods),
            Signal.PIDS: self._pids(),
            **_disk(self._root, Signal.NODE_FS, Signal.NODE_FS_INODES),
            **_disk(image_dir or IMAGE_DIR, Signal.IMAGE_FS, Signal.IMAGE_FS_INODES),
        }
        return {signal: observed for signal, observed in found.items() if observed is not None}

    def _memory(self) -> Observation | None:
        """The machine's size less its working set: pages of files that were not used of late count as free."""
        used = self.cgroups.memory(_TOP)
        if used is None:
            return None
        capacity = self._facts.memory_bytes
        return Observation(max(0, capacity - used.working_set_bytes), capacity)

    def _allocatable(self, pods: PurePosixPath) -> Observation | None:
        used = self.cgroups.memory(pods)
        if used is None or used.limit_bytes is None:
            return None
        return Observation(max(0, used.limit_bytes - used.working_set_bytes), used.limit_bytes)

    def _pids(self) -> Observation | None:
        """Processes and threads, in one short file: counting /proc would cost a fork's worth of work each time."""
        try:
            # "0.20 0.18 0.12 1/80 11206": running tasks of all tasks
            tasks = int((self._proc / "loadavg").read_text().split()[3].split("/")[1])
        except (OSError, IndexError, ValueError):
            return None
        return Observation(max(0, self._facts.most_pids - tasks), self._facts.most_pids)


def shares_disk(folder: Path, other: Path) -> bool:
    """Both are on one file system. Blocks for a moment; what does not exist counts as where it would be."""
    try:
        return nearest_existing(folder).stat().st_dev == nearest_existing(other).stat().st_dev
    except OSError:
        return False


def _disk(folder: Path, space: Signal, inodes: Signal) -> dict[Signal, Observation | None]:
    try:
        found = os.statvfs(nearest_existing(folder))
    except OSError:
        return {}
    return {
        space: Observation(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize),
        # btrfs and others make inodes as they need them and count none.
        inodes: Observation(found.f_ffree, found.f_files) if found.f_files else None,
    }
