"""The figures of one reading: what `reader` found and the pages tell. Times are Unix nanoseconds, sizes bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from agent.model.observed import ObservedPod
from agent.model.pod import Pod
from agent.stats.cgroups import Details, Usage
from agent.stats.disk import FileSystem
from agent.stats.network import Interface


class Subject(msgspec.Struct, frozen=True):
    """A pod to be read: as it is desired, as the runtime has it, and its volumes' folders as far as they are known."""

    pod: Pod
    observed: ObservedPod
    volumes: Mapping[str, Path] = msgspec.field(default_factory=dict)


class Taken(msgspec.Struct, frozen=True):
    used_bytes: int
    inodes: int


class ContainerFigures(msgspec.Struct, frozen=True):
    name: str
    """Empty for the sandbox's own."""
    id: str
    image: str
    cgroup: str
    started_at_ns: int
    usage: Usage
    details: Details | None = None
    log: Taken | None = None
    writable: Taken | None = None
    """What it has written to its own file system, where the runtime says so."""


class VolumeFigures(msgspec.Struct, frozen=True):
    name: str
    disk: FileSystem
    claim: str = ""
    on_node: bool = False
    """It counts as the pod's use of the node's disk: not in memory, not a claim's."""


class PodFigures(msgspec.Struct, frozen=True):
    namespace: str
    name: str
    uid: str
    started_at_ns: int
    cgroup: str
    usage: Usage | None
    containers: tuple[ContainerFigures, ...] = ()
    sandbox: ContainerFigures | None = None
    details: Details | None = None
    network: tuple[Interface, ...] = ()
    """Empty for a pod on the host's network."""
    volumes: tuple[VolumeFigures, ...] = ()


class MachineFigures(msgspec.Struct, frozen=True):
    cpus: int
    memory_bytes: int
    swap_bytes: int
    swap_used_bytes: int
    booted_at_ns: int
    processes: int
    process_limit: int
    disk: FileSystem | None
    """Of the file system that holds the agent's folder."""
    logs_disk: FileSystem | None
    images_disk: FileSystem | None = None
    images_used_bytes: int = 0
    network: tuple[Interface, ...] = ()


class Reading(msgspec.Struct, frozen=True):
    at_ns: int
    node: Usage | None
    machine: MachineFigures
    pods: tuple[PodFigures, ...]
    system: Mapping[str, Usage] = msgspec.field(default_factory=dict)
    """Of what a kubelet calls system containers: `kubelet` (this agent) and `pods`."""
    node_details: Details | None = None
