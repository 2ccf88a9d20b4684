"""Read what is left of the machine: a few short files and a statvfs for each file system, nothing of any single pod.

In: the machine's size, its folders and cgroups. Out: observations by signal; what cannot be read is left out. Blocks
for moments: run it in a thread.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from agent.node.eviction.signals import Observation, Signal
from agent.node.facts import MachineFacts, nearest_existing
from agent.stats.cgroups import Cgroups
from agent.stats.disk import file_system
from agent.stats.reader import tasks

IMAGE_DIR = Path("/var/lib/containerd")
"""Where images are with a provider that does not say it."""
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
        """`image_dir` is on the file system of images, `pods` the cgroup of all pods together; None: not known yet, and
        not guessed: what a wrong disk shows would reject pods.
        """
        found: dict[Signal, Observation | None] = {
            Signal.MEMORY: self._memory(),
            Signal.ALLOCATABLE_MEMORY: None if pods is None else self._allocatable(pods),
            Signal.PIDS: self._pids(),
            **_disk(self._root, Signal.NODE_FS, Signal.NODE_FS_INODES),
        }
        if image_dir is not None:
            found |= _disk(image_dir, Signal.IMAGE_FS, Signal.IMAGE_FS_INODES)
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
        if (now := tasks(self._proc)) is None:
            return None
        return Observation(max(0, self._facts.most_pids - now), self._facts.most_pids)


def shares_disk(folder: Path, other: Path) -> bool:
    """Both are on one file system. Blocks for a moment; what does not exist counts as where it would be."""
    try:
        return nearest_existing(folder).stat().st_dev == nearest_existing(other).stat().st_dev
    except OSError:
        return False


def _disk(folder: Path, space: Signal, inodes: Signal) -> dict[Signal, Observation | None]:
    found = file_system(nearest_existing(folder))
    if found is None:
        return {}
    return {
        space: Observation(found.available_bytes, found.capacity_bytes),
        # btrfs and others make inodes as they need them and count none.
        inodes: Observation(found.inodes_free, found.inodes) if found.inodes else None,
    }
