"""When the machine runs short: of memory, of disk, of process ids.

In: what is left, read by psutil and statvfs. Out: which conditions of the Node are true. The thresholds are the
kubelet's default hard ones. Nothing is evicted here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from agent.node.facts import nearest_existing

MEMORY_AVAILABLE_BYTES = 100 * 2**20
NODE_FS_AVAILABLE = 0.10
NODE_FS_INODES_FREE = 0.05
IMAGE_FS_AVAILABLE = 0.15
IMAGE_FS_INODES_FREE = 0.05
HOLD_S = 300.0
"""A pressure counts as over only this long after it was last seen, so that a Node on the brink does not flap."""
PIDS_AVAILABLE = 0.02
"""The kubelet has no default here; below this share a machine can hardly log anybody in."""


@dataclass(frozen=True, slots=True)
class FileSystem:
    """Shares of the whole, 0 to 1."""

    available: float
    inodes_free: float


@dataclass(frozen=True, slots=True)
class Signals:
    memory_available_bytes: int
    node_fs: FileSystem
    image_fs: FileSystem
    pids_available: float


@dataclass(frozen=True, slots=True)
class Pressure:
    memory: bool = False
    disk: bool = False
    pids: bool = False


def pressure(signals: Signals) -> Pressure:
    return Pressure(
        memory=signals.memory_available_bytes < MEMORY_AVAILABLE_BYTES,
        disk=signals.node_fs.available < NODE_FS_AVAILABLE
        or signals.node_fs.inodes_free < NODE_FS_INODES_FREE
        or signals.image_fs.available < IMAGE_FS_AVAILABLE
        or signals.image_fs.inodes_free < IMAGE_FS_INODES_FREE,
        pids=signals.pids_available < PIDS_AVAILABLE,
    )


class SteadyPressure:
    """Readings in, the pressure that the Node shows out."""

    def __init__(self) -> None:
        self._seen_at: dict[str, float] = {}

    def after(self, reading: Pressure, now: float) -> Pressure:
        """`now` is monotonic."""
        names = [field.name for field in fields(Pressure)]
        self._seen_at |= {name: now for name in names if getattr(reading, name)}
        return Pressure(**{name: name in self._seen_at and now - self._seen_at[name] < HOLD_S for name in names})


def read_signals(root_dir: Path, image_dir: Path, pid_max: int) -> Signals:
    """Blocks for moments. A folder that does not exist counts as the file system that it would be on."""
    return Signals(
        memory_available_bytes=psutil.virtual_memory().available,
        node_fs=_file_system(root_dir),
        image_fs=_file_system(image_dir),
        pids_available=1 - _tasks() / pid_max,
    )


def _file_system(folder: Path) -> FileSystem:
    found = os.statvfs(nearest_existing(folder))
    return FileSystem(
        available=found.f_bavail / found.f_blocks if found.f_blocks else 1.0,
        # btrfs and others make inodes as they need them and count none.
        inodes_free=found.f_favail / found.f_files if found.f_files else 1.0,
    )


def _tasks() -> int:
    """Processes and threads, in one short file: counting /proc would cost a fork's worth of work each time."""
    try:
        # "0.20 0.18 0.12 1/80 11206": running tasks of all tasks
        return int(Path("/proc/loadavg").read_text().split()[3].split("/")[1])
    except (OSError, IndexError, ValueError):
        return 0
