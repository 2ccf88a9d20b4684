"""Objects of storage.k8s.io that decide how a CSI volume gets to a pod: CSIDriver and VolumeAttachment.

Source of names and defaults: the Kubernetes API reference, storage.k8s.io/v1.
"""

from __future__ import annotations

from agent.model.meta import K8sStruct, ObjectMeta

PERSISTENT = "Persistent"
EPHEMERAL = "Ephemeral"


class TokenRequest(K8sStruct, frozen=True):
    audience: str = ""
    expirationSeconds: int | None = None


class CSIDriverSpec(K8sStruct, frozen=True):
    attachRequired: bool = True
    podInfoOnMount: bool = False
    fsGroupPolicy: str = "ReadWriteOnceWithFSType"
    volumeLifecycleModes: tuple[str, ...] = (PERSISTENT,)
    tokenRequests: tuple[TokenRequest, ...] = ()
    requiresRepublish: bool = False
    serviceAccountTokenInSecrets: bool = False


class CSIDriver(K8sStruct, frozen=True):
    metadata: ObjectMeta
    spec: CSIDriverSpec = CSIDriverSpec()


class VolumeError(K8sStruct, frozen=True):
    message: str = ""


class VolumeAttachmentStatus(K8sStruct, frozen=True):
    attached: bool = False
    attachmentMetadata: dict[str, str] = {}
    attachError: VolumeError | None = None


class VolumeAttachment(K8sStruct, frozen=True):
    metadata: ObjectMeta
    status: VolumeAttachmentStatus = VolumeAttachmentStatus()
