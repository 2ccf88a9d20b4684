"""What can run short on a machine, what each of it is called, and which condition of the Node tells of it.

Names are the kubelet's. Amounts are bytes or pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class Signal(StrEnum):
    MEMORY = "memory.available"
    ALLOCATABLE_MEMORY = "allocatableMemory.available"
    """What the pods' own cgroup leaves of its limit."""
    NODE_FS = "nodefs.available"
    NODE_FS_INODES = "nodefs.inodesFree"
    IMAGE_FS = "imagefs.available"
    IMAGE_FS_INODES = "imagefs.inodesFree"
    PIDS = "pid.available"


class Resource(StrEnum):
    """What is told of in messages, and by which pods are ranked."""

    MEMORY = "memory"
    DISK = "ephemeral-storage"
    INODES = "inodes"
    PIDS = "pids"


class Condition(StrEnum):
    """Of the Node, in the order in which several are named."""

    MEMORY = "MemoryPressure"
    DISK = "DiskPressure"
    PIDS = "PIDPressure"


class Observation(msgspec.Struct, frozen=True):
    available: int
    capacity: int


Observations = Mapping[Signal, Observation]
"""What cannot be read is missing."""

RESOURCES = {
    Signal.MEMORY: Resource.MEMORY,
    Signal.ALLOCATABLE_MEMORY: Resource.MEMORY,
    Signal.NODE_FS: Resource.DISK,
    Signal.NODE_FS_INODES: Resource.INODES,
    Signal.IMAGE_FS: Resource.DISK,
    Signal.IMAGE_FS_INODES: Resource.INODES,
    Signal.PIDS: Resource.PIDS,
}
CONDITIONS = {
    Resource.MEMORY: Condition.MEMORY,
    Resource.DISK: Condition.DISK,
    Resource.INODES: Condition.DISK,
    Resource.PIDS: Condition.PIDS,
}
IMAGE_FS = (Signal.IMAGE_FS, Signal.IMAGE_FS_INODES)
