"""The steps that make a volume ready: what `mount_plan` decides and `PodVolumes` takes.

Values only. `name` is the volume's name in the pod, `path` what containers mount.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.pods.volumes.payload import Payload


@dataclass(frozen=True, slots=True)
class MakeFolder:
    """emptyDir on disk."""

    name: str
    path: Path
    group: int | None


@dataclass(frozen=True, slots=True)
class MakeTmpfs:
    """emptyDir in memory."""

    name: str
    path: Path
    group: int | None
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class MakeHugetlbfs:
    """emptyDir on huge pages, all of one size."""

    name: str
    path: Path
    group: int | None
    page_bytes: int


@dataclass(frozen=True, slots=True)
class WritePayload:
    """A volume that the agent fills."""

    name: str
    path: Path
    group: int | None
    payload: Payload
    in_memory: bool
    """Secrets and what may hold one never touch a disk."""
    size_bytes: int | None
    nested: tuple[str, ...]
    """Folders to make for mounts inside this volume, which is read-only to the runtime."""


@dataclass(frozen=True, slots=True)
class CheckHostPath:
    name: str
    path: Path
    type: str


@dataclass(frozen=True, slots=True)
class Ownership:
    """fsGroup of a volume that outlives its pod: see `agent.pods.volumes.ownership`."""

    group: int
    on_root_mismatch: bool
    """fsGroupChangePolicy OnRootMismatch: a tree whose root is right is left as it is."""


@dataclass(frozen=True, slots=True)
class ShowLocal:
    """A local volume: a folder of the machine, or a block device that holds a file system, shown at `path`."""

    name: str
    path: Path
    source: Path
    fs_type: str
    """What an empty block device is formatted with."""
    options: tuple[str, ...]
    read_only: bool
    ownership: Ownership | None


@dataclass(frozen=True, slots=True)
class MountRemote:
    """Another machine's file system, mounted at `path`."""

    name: str
    path: Path
    source: str
    kind: str
    options: tuple[str, ...]


Step = MakeFolder | MakeTmpfs | MakeHugetlbfs | WritePayload | CheckHostPath | ShowLocal | MountRemote
