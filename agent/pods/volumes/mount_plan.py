"""Decide what must be on this machine before a pod's containers may start.

In: the pod, what it refers to, and the node. Out: one step a volume, in the order of the spec, or what is in the way.
No I/O: `PodVolumes` takes the steps.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import msgspec

from agent.model.container import Container
from agent.model.node import NodeFacts
from agent.model.pod import Pod
from agent.model.quantity import ceil_units
from agent.model.volume import Volume
from agent.pods.claims import bound
from agent.pods.downward import NodeContext
from agent.pods.references import Referenced
from agent.pods.volumes.csi_plan import inline_csi_step, persistent_csi_step
from agent.pods.volumes.layout import VolumePlugin, volume_dir
from agent.pods.volumes.payload import holds_payload, payload
from agent.pods.volumes.persistent import nfs_step, persistent_step
from agent.pods.volumes.steps import CheckHostPath, MakeFolder, MakeHugetlbfs, MakeTmpfs, Step, WritePayload

_HUGE = "HugePages"
_HUGE_RESOURCE = "hugepages-"


class MountPlan(msgspec.Struct, frozen=True):
    steps: tuple[Step, ...]
    problems: tuple[str, ...]
    """One message a volume that can't be set up, in the kubelet's form."""


def plan_mounts(
    pod: Pod,
    referenced: Referenced,
    node: NodeContext,
    root: Path,
    *,
    payloads_only: bool = False,
    facts: NodeFacts | None = None,
) -> MountPlan:
    """The steps for every volume of the pod, or only for those whose contents the agent writes.

    `facts`: the Node that a persistent volume's affinity must hold for; None: there is none to ask.
    """
    steps: list[Step] = []
    problems: list[str] = []
    for volume in pod.spec.volumes:
        # The runtime mounts images by itself.
        if volume.image is not None or (payloads_only and not holds_payload(volume)):
            continue
        try:
            steps.append(_step(pod, volume, referenced, node, root, facts))
        except ValueError as problem:
            problems.append(failure(volume.name, problem))
    return MountPlan(tuple(steps), tuple(problems))


def failure(volume: str, problem: Exception | str) -> str:
    """The message of a FailedMount event."""
    return f'MountVolume.SetUp failed for volume "{volume}" : {problem}'


def nested_mount_points(pod: Pod, volume: str) -> tuple[str, ...]:
    """Where other mounts of a container lie inside its mounts of this volume, relative to the volume."""
    found: dict[str, None] = {}
    for container in pod.spec.all_containers:
        for outer in container.volumeMounts:
            if outer.name != volume or outer.subPath or outer.subPathExpr:
                continue
            for inner in container.volumeMounts:
                inside, around = PurePosixPath(inner.mountPath), PurePosixPath(outer.mountPath)
                if inside != around and inside.is_relative_to(around):
                    relative = inside.relative_to(around)
                    if ".." not in relative.parts and not relative.parts[0].startswith(".."):
                        found[str(relative)] = None
    return tuple(found)


def tmpfs_bytes(pod: Pod, size_limit: int | None, node_memory: int | None) -> int | None:
    """The least of the node's allocatable memory, the pod's memory limit and the volume's own sizeLimit.

    None where none of them is known.
    """
    sizes = [size for size in (node_memory, pod_memory_limit(pod), size_limit) if size]
    return min(sizes) if sizes else None


def pod_memory_limit(pod: Pod) -> int | None:
    """Bytes that the pod's cgroup is held to; None where a container has no limit.

    Init containers run one after another beside the sidecars before them: the largest of those moments counts
    where it exceeds what runs afterwards (Kubernetes: "Sidecar containers", resource sharing within containers).
    """
    sidecars = 0
    highest = 0
    for container in pod.spec.initContainers:
        limit = _memory_limit(container)
        if limit is None:
            return None
        if container.is_sidecar:
            sidecars += limit
            highest = max(highest, sidecars)
        else:
            highest = max(highest, sidecars + limit)
    total = sidecars
    for container in pod.spec.containers:
        limit = _memory_limit(container)
        if limit is None:
            return None
        total += limit
    return max(total, highest)


def huge_page_bytes(pod: Pod, medium: str) -> int:
    """The page size of an emptyDir on huge pages: the medium's own, or the only one that the containers ask for.

    Raises ValueError where nothing in the pod asks for such pages, or for several sizes.
    """
    requests = {
        resource
        for container in (*pod.spec.containers, *pod.spec.initContainers)
        for resource in (container.resources.requests or container.resources.limits or {})
    }
    sizes = {ceil_units(name.removeprefix(_HUGE_RESOURCE)) for name in requests if name.startswith(_HUGE_RESOURCE)}
    if medium != _HUGE:
        sizes &= {ceil_units(medium.removeprefix(f"{_HUGE}-"))}
    if len(sizes) > 1:
        raise ValueError(f"medium: {medium} can't be used if container requests multiple huge page sizes")
    if not sizes:
        raise ValueError(
            f"medium {medium}: hugePages storage requested, but there is no resource request for huge pages"
        )
    return sizes.pop()


def _memory_limit(container: Container) -> int | None:
    limit = (container.resources.limits or {}).get("memory")
    return ceil_units(limit) or None if limit is not None else None


def _step(
    pod: Pod, volume: Volume, referenced: Referenced, node: NodeContext, root: Path, facts: NodeFacts | None
) -> Step:
    group = pod.spec.securityContext.fsGroup if pod.spec.securityContext is not None else None
    memory = node.allocatable.get("memory")
    node_memory = None if memory is None else ceil_units(memory)
    if volume.hostPath is not None:
        return CheckHostPath(volume.name, Path(volume.hostPath.path), volume.hostPath.type)
    if volume.claim_name(pod.metadata.name) is not None:
        found = bound(pod, volume, referenced, facts)
        if (csi := found.volume.spec.csi) is not None:
            return persistent_csi_step(pod, volume.name, found, csi, referenced, root)
        return persistent_step(pod, volume.name, found, root)
    if volume.csi is not None:
        return inline_csi_step(pod, volume.name, volume.csi, referenced, root)
    if volume.nfs is not None:
        path = volume_dir(root, pod.uid, VolumePlugin.NFS, volume.name)
        return nfs_step(volume.name, path, volume.nfs, (), read_only=volume.nfs.readOnly)
    if (source := volume.emptyDir) is not None:
        path = volume_dir(root, pod.uid, VolumePlugin.EMPTY_DIR, volume.name)
        match source.medium:
            case "":
                return MakeFolder(volume.name, path, group)
            case "Memory":
                limit = None if source.sizeLimit is None else ceil_units(source.sizeLimit)
                return MakeTmpfs(volume.name, path, group, tmpfs_bytes(pod, limit, node_memory))
            case medium if medium == _HUGE or medium.startswith(f"{_HUGE}-"):
                return MakeHugetlbfs(volume.name, path, group, huge_page_bytes(pod, medium))
            case _:
                raise ValueError(f'unsupported emptyDir medium "{source.medium}"')
    plugin = _plugin(volume)
    files = payload(pod, volume, referenced, node)
    taken = {PurePosixPath(path).parts[0] for path in files if path}
    return WritePayload(
        name=volume.name,
        path=volume_dir(root, pod.uid, plugin, volume.name),
        group=group,
        payload=files,
        in_memory=plugin is not VolumePlugin.CONFIG_MAP,
        size_bytes=node_memory,
        nested=tuple(
            point for point in nested_mount_points(pod, volume.name) if PurePosixPath(point).parts[0] not in taken
        ),
    )


def _plugin(volume: Volume) -> VolumePlugin:
    if volume.configMap is not None:
        return VolumePlugin.CONFIG_MAP
    if volume.secret is not None:
        return VolumePlugin.SECRET
    if volume.downwardAPI is not None:
        return VolumePlugin.DOWNWARD_API
    if volume.projected is not None:
        return VolumePlugin.PROJECTED
    raise ValueError("the volume is of no kind that this agent supports")
