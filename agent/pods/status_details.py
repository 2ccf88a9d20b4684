"""What a container's status repeats for its readers: its resources, its mounts, and whom its first process runs as.

In: the container's spec, what the runtime has of it, the status written before. Out: parts of a ContainerStatus.
No I/O. A running container keeps what it was made with: a spec that was resized meanwhile is not told as if it held.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agent.model.container import Container, ResourceRequirements
from agent.model.meta import Quantity
from agent.model.observed import ObservedContainer
from agent.model.status import (
    ContainerStatus,
    ContainerUser,
    LinuxContainerUser,
    PodStatus,
    ResourceStatus,
    VolumeMountStatus,
)
from agent.pods.pod_totals import effective_requests


def allocated(
    spec: Container, container_id: str, before: ContainerStatus | None, has: ResourceRequirements | None = None
) -> tuple[ResourceRequirements, dict[str, Quantity] | None]:
    """`resources` and `allocatedResources` of a container that the runtime has; `has`: what it is known to have."""
    if has is not None:
        return has, dict(effective_requests(spec.resources)) or None
    if before is not None and before.containerID == container_id and before.resources is not None:
        return before.resources, before.allocatedResources
    requests = dict(effective_requests(spec.resources)) or None
    return ResourceRequirements(limits=spec.resources.limits, requests=requests), requests


def volume_mounts(spec: Container, *, recursive_read_only: bool) -> tuple[VolumeMountStatus, ...]:
    """`recursive_read_only`: the pod's runtime handler can mount so."""
    return tuple(
        VolumeMountStatus(
            name=mount.name,
            mountPath=mount.mountPath,
            readOnly=mount.readOnly,
            recursiveReadOnly=_recursive(mount.recursiveReadOnly, recursive_read_only) if mount.readOnly else None,
        )
        for mount in spec.volumeMounts
    )


def with_devices(
    statuses: tuple[ContainerStatus, ...], devices: Mapping[str, tuple[ResourceStatus, ...]], before: PodStatus | None
) -> tuple[ContainerStatus, ...]:
    """With the health of each container's devices; once they are given back, as it was told last."""
    told = {one.name: one.allocatedResourcesStatus for one in before.containerStatuses} if before else {}
    found = {**{name: health for name, health in told.items() if health}, **devices}
    if not found:
        return statuses
    return tuple(msgspec.structs.replace(one, allocatedResourcesStatus=found.get(one.name, ())) for one in statuses)


def user(container: ObservedContainer) -> ContainerUser | None:
    """None where the runtime does not tell (containerd before 2.0)."""
    if container.user is None:
        return None
    uid, gid, groups = container.user
    return ContainerUser(linux=LinuxContainerUser(uid=uid, gid=gid, supplementalGroups=groups))


def _recursive(asked: str | None, possible: bool) -> str:
    return "Enabled" if possible and asked in ("Enabled", "IfPossible") else "Disabled"
