"""PersistentVolumeClaims and PersistentVolumes as the API server writes them: what a pod's claim is bound to.

Source of names and defaults: the Kubernetes API reference, core/v1. Kinds of volume that no node performs without a
cloud's or a driver's help have no field here.
"""

from __future__ import annotations

from agent.model.affinity import NodeSelector
from agent.model.meta import K8sStruct, ObjectMeta, Quantity
from agent.model.volume import HostPathVolumeSource, NFSVolumeSource

FILESYSTEM = "Filesystem"
BLOCK = "Block"
PROTECTION_FINALIZER = "kubernetes.io/pvc-protection"
MOUNT_OPTIONS_ANNOTATION = "volume.beta.kubernetes.io/mount-options"


class PersistentVolumeClaimSpec(K8sStruct, frozen=True):
    volumeName: str = ""
    accessModes: tuple[str, ...] = ()
    volumeMode: str = FILESYSTEM
    storageClassName: str | None = None


class PersistentVolumeClaimStatus(K8sStruct, frozen=True):
    phase: str = ""
    capacity: dict[str, Quantity] | None = None


class PersistentVolumeClaim(K8sStruct, frozen=True):
    metadata: ObjectMeta
    spec: PersistentVolumeClaimSpec = PersistentVolumeClaimSpec()
    status: PersistentVolumeClaimStatus = PersistentVolumeClaimStatus()


class ClaimReference(K8sStruct, frozen=True):
    """spec.claimRef: the claim that a volume is bound to."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


class VolumeNodeAffinity(K8sStruct, frozen=True):
    required: NodeSelector | None = None


class LocalVolumeSource(K8sStruct, frozen=True):
    path: str
    fsType: str | None = None


class SecretReference(K8sStruct, frozen=True):
    """A Secret of any namespace."""

    name: str = ""
    namespace: str = ""


class CSIPersistentVolumeSource(K8sStruct, frozen=True):
    driver: str
    volumeHandle: str
    readOnly: bool = False
    fsType: str = ""
    volumeAttributes: dict[str, str] | None = None
    nodeStageSecretRef: SecretReference | None = None
    nodePublishSecretRef: SecretReference | None = None
    nodeExpandSecretRef: SecretReference | None = None


class PersistentVolumeSpec(K8sStruct, frozen=True):
    """Exactly one source is set; where none of these is, the volume is of a kind that this node does not perform."""

    local: LocalVolumeSource | None = None
    hostPath: HostPathVolumeSource | None = None
    nfs: NFSVolumeSource | None = None
    csi: CSIPersistentVolumeSource | None = None
    capacity: dict[str, Quantity] | None = None
    accessModes: tuple[str, ...] = ()
    claimRef: ClaimReference | None = None
    mountOptions: tuple[str, ...] = ()
    nodeAffinity: VolumeNodeAffinity | None = None
    storageClassName: str = ""
    volumeMode: str = FILESYSTEM


class PersistentVolume(K8sStruct, frozen=True):
    metadata: ObjectMeta
    spec: PersistentVolumeSpec = PersistentVolumeSpec()

    @property
    def mount_options(self) -> tuple[str, ...]:
        """spec.mountOptions; the annotation that came before the field wins where there is one."""
        older = (self.metadata.annotations or {}).get(MOUNT_OPTIONS_ANNOTATION)
        return self.spec.mountOptions if older is None else tuple(option for option in older.split(",") if option)
