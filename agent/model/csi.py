"""What is said to a CSI driver of one volume, and what a driver says of itself.

Values only: `agent.csi` puts them on the wire. Source of names and meaning: the Container Storage Interface, v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar

import msgspec

from agent.discreet import Discreet
from agent.errors import Retryable

CSI_PLUGIN = "kubernetes.io/csi"
"""The volume plugin's name in paths, messages and unique volume names."""


class Capability(StrEnum):
    """What a driver's node service may be able to do, as far as anybody here asks."""

    STAGE_UNSTAGE_VOLUME = "STAGE_UNSTAGE_VOLUME"
    VOLUME_MOUNT_GROUP = "VOLUME_MOUNT_GROUP"
    SINGLE_NODE_MULTI_WRITER = "SINGLE_NODE_MULTI_WRITER"


class PluginInfo(msgspec.Struct, frozen=True):
    """What a plugin says on its registration socket."""

    type: str
    name: str
    endpoint: str
    """The path of its own socket; empty: the registration socket itself."""
    versions: tuple[str, ...]


class DriverNode(msgspec.Struct, frozen=True):
    """This machine, as a driver knows it."""

    node_id: str
    max_volumes: int = 0
    """0: the driver names no limit."""
    topology: Mapping[str, str] = msgspec.field(default_factory=dict)


class MountCapability(msgspec.Struct, frozen=True):
    access_mode: str = "ReadWriteOnce"
    """In Kubernetes' words."""
    fs_type: str = ""
    mount_flags: tuple[str, ...] = ()
    group: int | None = None
    """The group that the driver is to give the volume to."""


class StageVolume(Discreet, frozen=True):
    hidden: ClassVar = frozenset({"secrets"})
    volume_id: str
    staging_path: str
    capability: MountCapability
    publish_context: Mapping[str, str] = {}
    volume_context: Mapping[str, str] = {}
    secrets: Mapping[str, str] = {}


class PublishVolume(Discreet, frozen=True):
    hidden: ClassVar = frozenset({"volume_context", "secrets"})
    volume_id: str
    target_path: str
    capability: MountCapability
    read_only: bool = False
    staging_path: str = ""
    """Empty: the driver stages nothing."""
    publish_context: Mapping[str, str] = {}
    volume_context: Mapping[str, str] = {}
    """May hold service-account tokens."""
    secrets: Mapping[str, str] = {}


class DriverError(Retryable):
    """A driver did not do what it was asked to. `final`: it refused, and did nothing; else nobody knows."""

    def __init__(self, message: str, *, final: bool, code: str = "") -> None:
        super().__init__(message)
        self.final = final
        self.code = code
