"""The steps that make a volume ready: what `mount_plan` decides and `PodVolumes` takes.

Values only. `name` is the volume's name in the pod, `path` what containers mount.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import msgspec

from agent.discreet import Discreet
from agent.model.storage import TokenRequest
from agent.pods.volumes.payload import Payload


class MakeFolder(msgspec.Struct, frozen=True):
    """emptyDir on disk."""

    name: str
    path: Path
    group: int | None


class MakeTmpfs(msgspec.Struct, frozen=True):
    """emptyDir in memory."""

    name: str
    path: Path
    group: int | None
    size_bytes: int | None


class MakeHugetlbfs(msgspec.Struct, frozen=True):
    """emptyDir on huge pages, all of one size."""

    name: str
    path: Path
    group: int | None
    page_bytes: int


class WritePayload(msgspec.Struct, frozen=True):
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


class CheckHostPath(msgspec.Struct, frozen=True):
    name: str
    path: Path
    type: str


class Ownership(msgspec.Struct, frozen=True):
    """fsGroup of a volume that outlives its pod: see `agent.pods.volumes.ownership`."""

    group: int
    on_root_mismatch: bool
    """fsGroupChangePolicy OnRootMismatch: a tree whose root is right is left as it is."""


class ShowLocal(msgspec.Struct, frozen=True):
    """A local volume: a folder of the machine, or a block device that holds a file system, shown at `path`."""

    name: str
    path: Path
    source: Path
    fs_type: str
    """What an empty block device is formatted with."""
    options: tuple[str, ...]
    read_only: bool
    ownership: Ownership | None


class MountRemote(msgspec.Struct, frozen=True):
    """Another machine's file system, mounted at `path`."""

    name: str
    path: Path
    source: str
    kind: str
    options: tuple[str, ...]


class PublishCsi(Discreet, frozen=True):
    """A volume that a CSI driver brings to `path`: see `agent.pods.volumes.csi`."""

    hidden: ClassVar = frozenset({"stage_secrets", "publish_secrets"})
    name: str
    path: Path
    spec_name: str
    """The PersistentVolume's name; of an inline volume its own."""
    driver: str
    handle: str
    persistent: bool
    staging: Path | None
    """None: an inline volume, which is never staged."""
    attach: bool
    """A controller attaches it to this node first."""
    access_mode: str
    fs_type: str
    mount_flags: tuple[str, ...]
    read_only: bool
    attributes: Mapping[str, str]
    pod_info: Mapping[str, str]
    tokens: tuple[TokenRequest, ...]
    tokens_in_secrets: bool
    stage_secrets: Mapping[str, str]
    publish_secrets: Mapping[str, str]
    group: int | None
    """fsGroup, for a driver that gives the volume to it."""
    ownership: Ownership | None
    """The same for one that does not."""
    republish: bool


LocalStep = MakeFolder | MakeTmpfs | MakeHugetlbfs | WritePayload | CheckHostPath | ShowLocal | MountRemote
"""What is done on this machine, without anybody's help."""

Step = LocalStep | PublishCsi
