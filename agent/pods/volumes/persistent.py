"""Decide how the volume behind a claim, or a network volume that a pod names itself, gets onto this machine.

In: the claim's volume as `agent.pods.claims` resolved it. Out: one step. Pure. One function a kind of source; a kind
without one is ValueError. To add a kind: its source in `agent.model.persistent`, a step, and a case here.
"""

from __future__ import annotations

from pathlib import Path

from agent.model.container import PodSecurityContext
from agent.model.persistent import BLOCK
from agent.model.pod import Pod
from agent.model.volume import NFSVolumeSource
from agent.pods.claims import Bound
from agent.pods.volumes.layout import VolumePlugin, volume_dir
from agent.pods.volumes.steps import CheckHostPath, MountRemote, Ownership, ShowLocal, Step

DEFAULT_FS_TYPE = "ext4"
ON_ROOT_MISMATCH = "OnRootMismatch"


def persistent_step(pod: Pod, name: str, bound: Bound, root: Path) -> Step:
    """`name` is the volume's name in the pod; in the pod's folder it has the PersistentVolume's. Raises ValueError."""
    volume, spec = bound.volume, bound.volume.spec
    if spec.volumeMode == BLOCK:
        # Whoever asked for a raw device must never find a file system made on it.
        raise ValueError(f"PersistentVolume {volume.metadata.name}: volumeMode Block is not supported by this node")
    if spec.hostPath is not None:
        return CheckHostPath(name, Path(spec.hostPath.path), spec.hostPath.type)
    if spec.local is not None:
        return ShowLocal(
            name=name,
            path=volume_dir(root, pod.uid, VolumePlugin.LOCAL, volume.metadata.name),
            source=Path(spec.local.path),
            fs_type=spec.local.fsType or DEFAULT_FS_TYPE,
            options=volume.mount_options,
            read_only=bound.read_only,
            ownership=None if bound.read_only else ownership(pod.spec.securityContext),
        )
    if spec.nfs is not None:
        path = volume_dir(root, pod.uid, VolumePlugin.NFS, volume.metadata.name)
        return nfs_step(name, path, spec.nfs, volume.mount_options, read_only=bound.read_only)
    raise ValueError(f"PersistentVolume {volume.metadata.name} is of a kind that this node does not support")


def nfs_step(
    name: str, path: Path, source: NFSVolumeSource, options: tuple[str, ...], *, read_only: bool
) -> MountRemote:
    # An IPv6 address is told from the path after it by its brackets.
    server = f"[{source.server}]" if ":" in source.server and not source.server.startswith("[") else source.server
    asked = dict.fromkeys((*(("ro",) if read_only else ()), *options))
    return MountRemote(name, path, f"{server}:{source.path}", "nfs", tuple(asked))


def ownership(security: PodSecurityContext | None) -> Ownership | None:
    """What the pod's fsGroup asks of a volume that is writable and outlives the pod."""
    if security is None or security.fsGroup is None:
        return None
    return Ownership(security.fsGroup, security.fsGroupChangePolicy == ON_ROOT_MISMATCH)
