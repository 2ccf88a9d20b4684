"""The volumes of a pod, their mounts, and what they refer to, as the API server writes them.

Source of names and defaults: the Kubernetes API reference, core/v1.
"""

from __future__ import annotations

from typing import Any

from agent.model.meta import K8sStruct, Quantity


class KeyToPath(K8sStruct, frozen=True):
    key: str
    path: str
    mode: int | None = None


class LocalObjectReference(K8sStruct, frozen=True):
    name: str = ""


class ObjectFieldSelector(K8sStruct, frozen=True):
    fieldPath: str
    apiVersion: str = "v1"


class ResourceFieldSelector(K8sStruct, frozen=True):
    resource: str
    containerName: str = ""
    divisor: Quantity = "0"


class KeySelector(K8sStruct, frozen=True):
    """ConfigMapKeySelector and SecretKeySelector."""

    key: str
    name: str = ""
    optional: bool | None = None


class ObjectSource(K8sStruct, frozen=True):
    """ConfigMapEnvSource and SecretEnvSource."""

    name: str = ""
    optional: bool | None = None


class EmptyDirVolumeSource(K8sStruct, frozen=True):
    medium: str = ""
    sizeLimit: Quantity | None = None


class HostPathVolumeSource(K8sStruct, frozen=True):
    path: str
    type: str = ""


class ConfigMapVolumeSource(K8sStruct, frozen=True):
    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    defaultMode: int = 0o644
    optional: bool | None = None


class SecretVolumeSource(K8sStruct, frozen=True):
    secretName: str = ""
    items: tuple[KeyToPath, ...] = ()
    defaultMode: int = 0o644
    optional: bool | None = None


class DownwardAPIVolumeFile(K8sStruct, frozen=True):
    path: str
    fieldRef: ObjectFieldSelector | None = None
    resourceFieldRef: ResourceFieldSelector | None = None
    mode: int | None = None


class DownwardAPIVolumeSource(K8sStruct, frozen=True):
    items: tuple[DownwardAPIVolumeFile, ...] = ()
    defaultMode: int = 0o644


class ConfigMapProjection(K8sStruct, frozen=True):
    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool | None = None


class SecretProjection(K8sStruct, frozen=True):
    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool | None = None


class DownwardAPIProjection(K8sStruct, frozen=True):
    items: tuple[DownwardAPIVolumeFile, ...] = ()


class ServiceAccountTokenProjection(K8sStruct, frozen=True):
    path: str
    audience: str = ""
    expirationSeconds: int = 3600


class LabelSelectorRequirement(K8sStruct, frozen=True):
    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(K8sStruct, frozen=True):
    matchLabels: dict[str, str] | None = None
    matchExpressions: tuple[LabelSelectorRequirement, ...] = ()


class ClusterTrustBundleProjection(K8sStruct, frozen=True):
    path: str
    name: str | None = None
    signerName: str | None = None
    labelSelector: LabelSelector | None = None
    optional: bool | None = None


class VolumeProjection(K8sStruct, frozen=True):
    configMap: ConfigMapProjection | None = None
    secret: SecretProjection | None = None
    downwardAPI: DownwardAPIProjection | None = None
    serviceAccountToken: ServiceAccountTokenProjection | None = None
    clusterTrustBundle: ClusterTrustBundleProjection | None = None


class ProjectedVolumeSource(K8sStruct, frozen=True):
    sources: tuple[VolumeProjection, ...] = ()
    defaultMode: int = 0o644


class CSIVolumeSource(K8sStruct, frozen=True):
    """An inline volume of a CSI driver: made for its pod and gone with it."""

    driver: str
    readOnly: bool = False
    fsType: str | None = None
    volumeAttributes: dict[str, str] | None = None
    nodePublishSecretRef: LocalObjectReference | None = None


class NFSVolumeSource(K8sStruct, frozen=True):
    server: str
    path: str
    readOnly: bool = False


class PersistentVolumeClaimVolumeSource(K8sStruct, frozen=True):
    claimName: str
    readOnly: bool = False


class EphemeralVolumeSource(K8sStruct, frozen=True):
    """A controller makes the claim from the template; a node only looks for it by name."""

    volumeClaimTemplate: Any = None


class ImageVolumeSource(K8sStruct, frozen=True):
    """An image (or any OCI artifact) as a read-only volume: the runtime mounts it, the node only has it pulled."""

    reference: str = ""
    pullPolicy: str = ""


class Volume(K8sStruct, frozen=True):
    """One volume; exactly one source is set. Source kinds without a field here are refused at admission."""

    name: str
    emptyDir: EmptyDirVolumeSource | None = None
    hostPath: HostPathVolumeSource | None = None
    configMap: ConfigMapVolumeSource | None = None
    secret: SecretVolumeSource | None = None
    downwardAPI: DownwardAPIVolumeSource | None = None
    projected: ProjectedVolumeSource | None = None
    nfs: NFSVolumeSource | None = None
    image: ImageVolumeSource | None = None
    csi: CSIVolumeSource | None = None
    persistentVolumeClaim: PersistentVolumeClaimVolumeSource | None = None
    ephemeral: EphemeralVolumeSource | None = None

    def claim_name(self, pod_name: str) -> str | None:
        """The PersistentVolumeClaim behind the volume, in the pod's namespace; None for other kinds."""
        if self.persistentVolumeClaim is not None:
            return self.persistentVolumeClaim.claimName
        return f"{pod_name}-{self.name}" if self.ephemeral is not None else None

    @property
    def is_read_only(self) -> bool:
        """The pod asks for the whole volume to be read-only, whatever a mount of it says."""
        sources = (self.nfs, self.persistentVolumeClaim)
        return self.image is not None or any(source is not None and source.readOnly for source in sources)


class VolumeDevice(K8sStruct, frozen=True):
    name: str


class VolumeMount(K8sStruct, frozen=True):
    name: str
    mountPath: str
    readOnly: bool = False
    recursiveReadOnly: str | None = None
    subPath: str = ""
    subPathExpr: str = ""
    mountPropagation: str | None = None
