"""Objects that a pod refers to (ConfigMap, Secret, Service, ServiceAccount), and the reference an event carries.

Claims and the volumes behind them are in `agent.model.persistent`.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, Literal

import msgspec

from agent.model.meta import K8sStruct, ObjectMeta
from agent.model.pod import Pod

ObjectKind = Literal[
    "configmaps",
    "secrets",
    "serviceaccounts",
    "persistentvolumeclaims",
    "persistentvolumes",
    "clustertrustbundles",
    "csidrivers",
    "volumeattachments",
    "runtimeclasses",
]
"""Plural resource names of what a pod may refer to by name, directly or through another of them."""


CLUSTER_WIDE: Final[frozenset[ObjectKind]] = frozenset(
    {"persistentvolumes", "clustertrustbundles", "csidrivers", "volumeattachments", "runtimeclasses"}
)
"""Kinds that belong to no namespace."""


class ObjectKey(msgspec.Struct, frozen=True):
    """An object that a pod refers to; `namespace` is empty for kinds that are the cluster's."""

    kind: ObjectKind
    namespace: str
    name: str
    fields: str = ""
    """A field selector: then the key has no name, and stands for a list, of all objects that are selected."""
    labels: str = ""
    """A label selector beside it."""


class Token(msgspec.Struct, frozen=True):
    """A bound service-account token. `expires_at` is in Unix seconds."""

    token: str
    expires_at: float


class ConfigMap(K8sStruct, frozen=True):
    metadata: ObjectMeta
    data: dict[str, str] = {}
    binaryData: dict[str, str] = {}
    immutable: bool | None = None

    def contents(self) -> dict[str, bytes]:
        """Every key with its bytes; text is UTF-8, binaryData is base64 in the API."""
        found = {key: text.encode() for key, text in self.data.items()}
        for key, text in self.binaryData.items():
            found[key] = _from_base64(key, text)
        return found


class Secret(K8sStruct, frozen=True):
    metadata: ObjectMeta
    data: dict[str, str] = {}
    type: str = "Opaque"
    immutable: bool | None = None

    def contents(self) -> dict[str, bytes]:
        """Every key with its decoded bytes."""
        return {key: _from_base64(key, text) for key, text in self.data.items()}


class ClusterTrustBundleSpec(K8sStruct, frozen=True):
    trustBundle: str = ""
    """PEM."""
    signerName: str = ""


class ClusterTrustBundle(K8sStruct, frozen=True):
    metadata: ObjectMeta
    spec: ClusterTrustBundleSpec = ClusterTrustBundleSpec()


class ClusterTrustBundleList(K8sStruct, frozen=True):
    """What a selection came to."""

    items: tuple[ClusterTrustBundle, ...] = ()


class ServicePort(K8sStruct, frozen=True):
    port: int
    name: str = ""
    protocol: str = "TCP"


class ServiceSpec(K8sStruct, frozen=True):
    clusterIP: str = ""
    ports: tuple[ServicePort, ...] = ()


class Service(K8sStruct, frozen=True):
    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()


class ServiceAccount(K8sStruct, frozen=True):
    metadata: ObjectMeta
    imagePullSecrets: tuple[dict[str, str], ...] = ()


class RuntimeClass(K8sStruct, frozen=True):
    """node.k8s.io/v1: which handler of the runtime runs a pod. Overhead is copied into pods by the API server."""

    metadata: ObjectMeta
    handler: str


class ObjectReference(K8sStruct, frozen=True):
    """involvedObject of an event."""

    kind: str
    name: str
    uid: str
    apiVersion: str = "v1"
    namespace: str = ""
    resourceVersion: str = ""
    fieldPath: str = ""

    @classmethod
    def of(cls, pod: Pod, field_path: str = "") -> ObjectReference:
        """The pod itself, or a part of it such as `spec.containers{main}`."""
        meta = pod.metadata
        return cls(
            kind="Pod",
            name=meta.name,
            uid=meta.uid,
            namespace=meta.namespace,
            resourceVersion=meta.resourceVersion,
            fieldPath=field_path,
        )


def _from_base64(key: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise msgspec.ValidationError(f"data[{key!r}] is not base64: {error}") from error
