"""The Pod as the API server writes it, typed.

In: JSON bytes of a v1.Pod (or the dict of a manifest). Out: frozen structs with the API's own camelCase names and
the API server's defaults, so that a manifest and an object from the cluster read alike. The raw JSON is kept by
whoever decoded it (`PodRecord`), so nothing that these views do not name is lost.

Source of names and defaults: the Kubernetes API reference, core/v1.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agent.model.affinity import Affinity, Toleration
from agent.model.container import Container, EphemeralContainer, PodSecurityContext, ResourceRequirements
from agent.model.meta import K8sStruct, ObjectMeta, Quantity
from agent.model.volume import LocalObjectReference, Volume


class HostAlias(K8sStruct, frozen=True):
    ip: str
    hostnames: tuple[str, ...] = ()


class PodDNSConfigOption(K8sStruct, frozen=True):
    name: str = ""
    value: str | None = None


class PodDNSConfig(K8sStruct, frozen=True):
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[PodDNSConfigOption, ...] = ()


class PodReadinessGate(K8sStruct, frozen=True):
    conditionType: str


class PodOS(K8sStruct, frozen=True):
    name: str


class PodSpec(K8sStruct, frozen=True):
    containers: tuple[Container, ...] = ()
    initContainers: tuple[Container, ...] = ()
    ephemeralContainers: tuple[EphemeralContainer, ...] = ()
    volumes: tuple[Volume, ...] = ()
    restartPolicy: str = "Always"
    terminationGracePeriodSeconds: int = 30
    activeDeadlineSeconds: int | None = None
    dnsPolicy: str = "ClusterFirst"
    dnsConfig: PodDNSConfig | None = None
    serviceAccountName: str = ""
    automountServiceAccountToken: bool | None = None
    nodeName: str = ""
    nodeSelector: dict[str, str] | None = None
    hostNetwork: bool = False
    hostPID: bool = False
    hostIPC: bool = False
    hostUsers: bool | None = None
    shareProcessNamespace: bool = False
    securityContext: PodSecurityContext | None = None
    imagePullSecrets: tuple[LocalObjectReference, ...] = ()
    hostname: str = ""
    hostnameOverride: str | None = None
    subdomain: str = ""
    setHostnameAsFQDN: bool | None = None
    hostAliases: tuple[HostAlias, ...] = ()
    enableServiceLinks: bool = True
    readinessGates: tuple[PodReadinessGate, ...] = ()
    runtimeClassName: str | None = None
    priority: int | None = None
    priorityClassName: str = ""
    overhead: dict[str, Quantity] | None = None
    resources: ResourceRequirements | None = None
    """Of the pod as a whole, beside those of its containers."""
    os: PodOS | None = None
    affinity: Affinity | None = None
    tolerations: tuple[Toleration, ...] = ()
    # Only the scheduler and the controllers read these; a node agent has nothing to do for them.
    serviceAccount: str = ""
    schedulerName: str = ""
    preemptionPolicy: str | None = None
    topologySpreadConstraints: Any = None
    schedulingGates: Any = None

    @property
    def all_containers(self) -> tuple[Container, ...]:
        """Of every kind; their names are unique."""
        return (*self.initContainers, *self.containers, *self.ephemeralContainers)

    def part_of(self, name: str) -> str:
        """The field that a container stands in, as references to it name it."""
        for part in ("initContainers", "ephemeralContainers"):
            if any(container.name == name for container in getattr(self, part)):
                return part
        return "containers"


class PodCondition(K8sStruct, frozen=True):
    """One entry of status.conditions as it stands in the API server: gates of other controllers live there."""

    type: str
    status: str
    lastTransitionTime: str | None = None
    lastProbeTime: str | None = None
    reason: str | None = None
    message: str | None = None
    observedGeneration: int | None = None


class ApiContainerStatus(K8sStruct, frozen=True):
    """What a status said of one container: what probes had found before the agent was restarted."""

    name: str = ""
    containerID: str = ""
    ready: bool = False
    started: bool | None = None
    restartCount: int = 0


class ApiPodStatus(K8sStruct, frozen=True):
    """What the agent reads back of a status: conditions, so that it keeps foreign ones, and the phase."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: tuple[PodCondition, ...] = ()
    startTime: str | None = None
    containerStatuses: tuple[ApiContainerStatus, ...] = ()
    initContainerStatuses: tuple[ApiContainerStatus, ...] = ()
    ephemeralContainerStatuses: tuple[ApiContainerStatus, ...] = ()

    @property
    def all_containers(self) -> tuple[ApiContainerStatus, ...]:
        return (*self.initContainerStatuses, *self.containerStatuses, *self.ephemeralContainerStatuses)


class Pod(K8sStruct, frozen=True):
    metadata: ObjectMeta
    spec: PodSpec
    status: ApiPodStatus = ApiPodStatus()
    apiVersion: str = "v1"
    kind: str = "Pod"

    @property
    def uid(self) -> str:
        return self.metadata.uid

    @property
    def full_name(self) -> str:
        """namespace/name, what people type."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def is_static(self) -> bool:
        """Made from a manifest on this machine, not by the API server."""
        return (self.metadata.annotations or {}).get("kubernetes.io/config.source", "api") != "api"


_decoder = msgspec.json.Decoder(Pod)


def decode_pod(raw: bytes) -> Pod:
    """The typed view of a v1.Pod in JSON. Raises msgspec.ValidationError naming the field path."""
    return _decoder.decode(raw)


def pod_from_dict(obj: dict[str, Any]) -> Pod:
    """The typed view of a v1.Pod given as a dict (a parsed manifest). Raises msgspec.ValidationError."""
    return msgspec.convert(obj, Pod)
