"""The PodStatus that the agent writes: structs that encode to the API's JSON, defaults left out.

Times are RFC 3339 in UTC with whole seconds, as the API server keeps them (`timestamp`).
Source: the Kubernetes API reference, core/v1 PodStatus.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from agent.model.container import ResourceRequirements
from agent.model.meta import K8sStruct, Quantity
from agent.model.pod import PodCondition


class Phase(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"

    @property
    def is_terminal(self) -> bool:
        """Nothing of the pod will ever run again."""
        return self in (Phase.SUCCEEDED, Phase.FAILED)


class Waiting(K8sStruct, frozen=True):
    reason: str = ""
    message: str = ""


class Running(K8sStruct, frozen=True):
    startedAt: str | None = None


class Terminated(K8sStruct, frozen=True):
    exitCode: int = msgspec.field(default_factory=int)  # a factory, so that 0 is written
    reason: str = ""
    message: str = ""
    signal: int = 0
    startedAt: str | None = None
    finishedAt: str | None = None
    containerID: str = ""


class State(K8sStruct, frozen=True):
    """Exactly one is set, or none for an empty lastState."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class VolumeMountStatus(K8sStruct, frozen=True):
    name: str
    mountPath: str
    readOnly: bool = False
    recursiveReadOnly: str | None = None
    """Disabled or Enabled, of a mount that is read-only."""


class LinuxContainerUser(K8sStruct, frozen=True):
    uid: int = msgspec.field(default_factory=int)
    gid: int = msgspec.field(default_factory=int)
    supplementalGroups: tuple[int, ...] = ()


class ContainerUser(K8sStruct, frozen=True):
    linux: LinuxContainerUser | None = None


class ResourceHealth(K8sStruct, frozen=True):
    resourceID: str
    health: str = ""
    """Healthy, Unhealthy or Unknown."""


class ResourceStatus(K8sStruct, frozen=True):
    name: str
    resources: tuple[ResourceHealth, ...] = ()


class ContainerStatus(K8sStruct, frozen=True):
    name: str
    state: State
    image: str = msgspec.field(default_factory=str)
    imageID: str = msgspec.field(default_factory=str)
    ready: bool = msgspec.field(default_factory=bool)
    restartCount: int = msgspec.field(default_factory=int)
    lastState: State = State()
    started: bool | None = None
    containerID: str = ""
    allocatedResources: dict[str, Quantity] | None = None
    resources: ResourceRequirements | None = None
    volumeMounts: tuple[VolumeMountStatus, ...] = ()
    user: ContainerUser | None = None
    allocatedResourcesStatus: tuple[ResourceStatus, ...] = ()
    """The health of its devices."""


class IP(K8sStruct, frozen=True):
    ip: str


class PodStatus(K8sStruct, frozen=True):
    phase: Phase
    conditions: tuple[PodCondition, ...] = ()
    reason: str = ""
    message: str = ""
    hostIP: str = ""
    hostIPs: tuple[IP, ...] = ()
    podIP: str = ""
    podIPs: tuple[IP, ...] = ()
    startTime: str | None = None
    qosClass: str = ""
    initContainerStatuses: tuple[ContainerStatus, ...] = ()
    containerStatuses: tuple[ContainerStatus, ...] = ()
    ephemeralContainerStatuses: tuple[ContainerStatus, ...] = ()
    observedGeneration: int = 0
    allocatedResources: dict[str, Quantity] | None = None
    resources: ResourceRequirements | None = None

    @property
    def all_containers(self) -> tuple[ContainerStatus, ...]:
        return (*self.initContainerStatuses, *self.containerStatuses, *self.ephemeralContainerStatuses)

    def condition(self, kind: str) -> PodCondition | None:
        """The condition of that type, None where there is none."""
        return next((c for c in self.conditions if c.type == kind), None)


def timestamp(unix_s: float) -> str:
    """RFC 3339 in UTC, whole seconds: 2026-01-02T03:04:05Z."""
    return datetime.fromtimestamp(int(unix_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unix_seconds(text: str) -> float:
    """The inverse of `timestamp`; fractions and offsets are understood. Raises ValueError."""
    return datetime.fromisoformat(text).timestamp()
