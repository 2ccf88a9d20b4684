"""A volume that names a claim to the PersistentVolume behind it, held against every rule of a kubelet.

In: the pod, one of its volumes, and what the pod refers to. Out: the claim and its volume (`Bound`), for whoever plans
mounts by the kind of that volume's source. Pure. What is not (yet) so is ValueError with the kubelet's words.
"""

from __future__ import annotations

import msgspec

from agent.model.node import NodeFacts
from agent.model.persistent import (
    BLOCK,
    FILESYSTEM,
    PROTECTION_FINALIZER,
    PersistentVolume,
    PersistentVolumeClaim,
)
from agent.model.pod import Pod
from agent.model.volume import Volume
from agent.pods.admission.selectors import selects
from agent.pods.references import Referenced


class Bound(msgspec.Struct, frozen=True):
    """A claim and the volume that it is bound to."""

    claim: PersistentVolumeClaim
    volume: PersistentVolume
    read_only: bool
    """The pod asks for the whole volume to be read-only; a source may have a word of its own."""


def bound(pod: Pod, volume: Volume, referenced: Referenced, node: NodeFacts | None = None) -> Bound:
    """What the claim of a volume with a `claim_name` is bound to, and may be used on the node. Raises ValueError."""
    namespace = pod.metadata.namespace
    name = volume.claim_name(pod.metadata.name)
    assert name is not None, "only volumes that name a claim have one"
    try:
        claim = _claim(namespace, name, referenced)
        _check_owner(pod, volume, claim)
        found = _volume(claim, referenced)
    except ValueError as problem:
        raise ValueError(f"error processing PVC {namespace}/{name}: {problem}") from problem
    _check_mode(pod, volume.name, found.spec.volumeMode)
    where = found.spec.nodeAffinity.required if found.spec.nodeAffinity is not None else None
    if where is not None and node is not None and not selects(where, node):
        raise ValueError("NodeAffinity check failed: no matching NodeSelectorTerms")
    source = volume.persistentVolumeClaim
    return Bound(claim, found, read_only=source is not None and source.readOnly)


def _claim(namespace: str, name: str, referenced: Referenced) -> PersistentVolumeClaim:
    claim = referenced.claim(namespace, name)
    if claim is None:
        raise ValueError(f'failed to fetch PVC from API server: persistentvolumeclaims "{name}" not found')
    if claim.metadata.deletionTimestamp is not None and PROTECTION_FINALIZER not in claim.metadata.finalizers:
        raise ValueError("PVC is being deleted")
    if claim.status.phase != "Bound":
        raise ValueError("PVC is not bound")
    if not claim.spec.volumeName:
        raise ValueError("PVC has empty pvc.Spec.VolumeName")
    return claim


def _check_owner(pod: Pod, volume: Volume, claim: PersistentVolumeClaim) -> None:
    """A claim that happens to have an ephemeral volume's name may hold somebody else's data."""
    owners = claim.metadata.ownerReferences
    if volume.ephemeral is not None and not any(owner.controller and owner.uid == pod.uid for owner in owners):
        raise ValueError(
            f"PVC {claim.metadata.namespace}/{claim.metadata.name} was not created for pod {pod.full_name} "
            "(pod is not owner)"
        )


def _volume(claim: PersistentVolumeClaim, referenced: Referenced) -> PersistentVolume:
    name = claim.spec.volumeName
    found = referenced.persistent_volume(name)
    if found is None:
        raise ValueError(f'failed to fetch PV {name} from API server: persistentvolumes "{name}" not found')
    if found.spec.claimRef is None:
        raise ValueError(
            f"found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
        )
    if found.spec.claimRef.uid != claim.metadata.uid:
        raise ValueError(
            f"found PV object {name} but its pv.Spec.ClaimRef.UID {found.spec.claimRef.uid} does not point to "
            f"claim.UID {claim.metadata.uid}"
        )
    return found


def _check_mode(pod: Pod, name: str, mode: str) -> None:
    containers = (*pod.spec.initContainers, *pod.spec.containers)
    if mode != FILESYSTEM and any(mount.name == name for c in containers for mount in c.volumeMounts):
        raise ValueError(f"volume {name} has volumeMode {mode}, but is specified in volumeMounts")
    if mode != BLOCK and any(device.name == name for c in containers for device in c.volumeDevices):
        raise ValueError(f"volume {name} has volumeMode {mode}, but is specified in volumeDevices")
