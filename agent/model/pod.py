"""The Pod as the API server writes it, typed.

In: JSON bytes of a v1.Pod (or the dict of a manifest). Out: frozen structs with the API's own camelCase names and
the API server's defaults, so that a manifest and an object from the cluster read alike. The raw JSON is kept by
whoever decoded it (`PodRecord`), so nothing that these views do not name is lost.

Source of names and defaults: the Kubernetes API reference, core/v1.
"""

from __future__ import annotations

from typing import Any

import msgspec

Quantity = str | int | float
"""A resource quantity as written: "100m", "1Gi", 2. `agent.model.quantity` parses it."""


class K8sStruct(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Base of all API views: immutable, keyword-only, defaults left out when encoded."""


class OwnerReference(K8sStruct, frozen=True):
    apiVersion: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    blockOwnerDeletion: bool | None = None


class ObjectMeta(K8sStruct, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""
    generation: int = 0
    creationTimestamp: str | None = None
    deletionTimestamp: str | None = None
    deletionGracePeriodSeconds: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    ownerReferences: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()


# ---------------------------------------------------------------- references and volumes


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


class VolumeProjection(K8sStruct, frozen=True):
    configMap: ConfigMapProjection | None = None
    secret: SecretProjection | None = None
    downwardAPI: DownwardAPIProjection | None = None
    serviceAccountToken: ServiceAccountTokenProjection | None = None


class ProjectedVolumeSource(K8sStruct, frozen=True):
    sources: tuple[VolumeProjection, ...] = ()
    defaultMode: int = 0o644


class Volume(K8sStruct, frozen=True):
    """One volume; exactly one source is set. Source kinds without a field here are refused at admission."""

    name: str
    emptyDir: EmptyDirVolumeSource | None = None
    hostPath: HostPathVolumeSource | None = None
    configMap: ConfigMapVolumeSource | None = None
    secret: SecretVolumeSource | None = None
    downwardAPI: DownwardAPIVolumeSource | None = None
    projected: ProjectedVolumeSource | None = None


class VolumeMount(K8sStruct, frozen=True):
    name: str
    mountPath: str
    readOnly: bool = False
    recursiveReadOnly: str | None = None
    subPath: str = ""
    subPathExpr: str = ""
    mountPropagation: str | None = None


# ---------------------------------------------------------------- containers


class EnvVarSource(K8sStruct, frozen=True):
    fieldRef: ObjectFieldSelector | None = None
    resourceFieldRef: ResourceFieldSelector | None = None
    configMapKeyRef: KeySelector | None = None
    secretKeyRef: KeySelector | None = None


class EnvVar(K8sStruct, frozen=True):
    name: str
    value: str | None = None
    valueFrom: EnvVarSource | None = None


class EnvFromSource(K8sStruct, frozen=True):
    prefix: str = ""
    configMapRef: ObjectSource | None = None
    secretRef: ObjectSource | None = None


class ContainerPort(K8sStruct, frozen=True):
    containerPort: int
    name: str = ""
    protocol: str = "TCP"
    hostPort: int = 0
    hostIP: str = ""


class ResourceRequirements(K8sStruct, frozen=True):
    limits: dict[str, Quantity] | None = None
    requests: dict[str, Quantity] | None = None


class Capabilities(K8sStruct, frozen=True):
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class SeccompProfile(K8sStruct, frozen=True):
    type: str
    localhostProfile: str | None = None


class AppArmorProfile(K8sStruct, frozen=True):
    type: str
    localhostProfile: str | None = None


class SELinuxOptions(K8sStruct, frozen=True):
    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


class SecurityContext(K8sStruct, frozen=True):
    runAsUser: int | None = None
    runAsGroup: int | None = None
    runAsNonRoot: bool | None = None
    privileged: bool | None = None
    allowPrivilegeEscalation: bool | None = None
    readOnlyRootFilesystem: bool | None = None
    capabilities: Capabilities | None = None
    procMount: str | None = None
    seccompProfile: SeccompProfile | None = None
    appArmorProfile: AppArmorProfile | None = None
    seLinuxOptions: SELinuxOptions | None = None


class Sysctl(K8sStruct, frozen=True):
    name: str
    value: str


class PodSecurityContext(K8sStruct, frozen=True):
    runAsUser: int | None = None
    runAsGroup: int | None = None
    runAsNonRoot: bool | None = None
    supplementalGroups: tuple[int, ...] = ()
    supplementalGroupsPolicy: str | None = None
    fsGroup: int | None = None
    fsGroupChangePolicy: str | None = None
    sysctls: tuple[Sysctl, ...] = ()
    seccompProfile: SeccompProfile | None = None
    appArmorProfile: AppArmorProfile | None = None
    seLinuxOptions: SELinuxOptions | None = None
    seLinuxChangePolicy: str | None = None


class HTTPHeader(K8sStruct, frozen=True):
    name: str
    value: str = ""


class ExecAction(K8sStruct, frozen=True):
    command: tuple[str, ...] = ()


class HTTPGetAction(K8sStruct, frozen=True):
    port: int | str
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    httpHeaders: tuple[HTTPHeader, ...] = ()


class TCPSocketAction(K8sStruct, frozen=True):
    port: int | str
    host: str = ""


class GRPCAction(K8sStruct, frozen=True):
    port: int
    service: str | None = None


class SleepAction(K8sStruct, frozen=True):
    seconds: int


class Probe(K8sStruct, frozen=True):
    exec: ExecAction | None = None
    httpGet: HTTPGetAction | None = None
    tcpSocket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initialDelaySeconds: int = 0
    timeoutSeconds: int = 1
    periodSeconds: int = 10
    successThreshold: int = 1
    failureThreshold: int = 3
    terminationGracePeriodSeconds: int | None = None


class LifecycleHandler(K8sStruct, frozen=True):
    exec: ExecAction | None = None
    httpGet: HTTPGetAction | None = None
    tcpSocket: TCPSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(K8sStruct, frozen=True):
    postStart: LifecycleHandler | None = None
    preStop: LifecycleHandler | None = None
    stopSignal: str | None = None


class Container(K8sStruct, frozen=True):
    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    workingDir: str = ""
    ports: tuple[ContainerPort, ...] = ()
    env: tuple[EnvVar, ...] = ()
    envFrom: tuple[EnvFromSource, ...] = ()
    resources: ResourceRequirements = ResourceRequirements()
    volumeMounts: tuple[VolumeMount, ...] = ()
    restartPolicy: str | None = None
    imagePullPolicy: str = ""
    livenessProbe: Probe | None = None
    readinessProbe: Probe | None = None
    startupProbe: Probe | None = None
    lifecycle: Lifecycle | None = None
    terminationMessagePath: str = "/dev/termination-log"
    terminationMessagePolicy: str = "File"
    securityContext: SecurityContext | None = None
    stdin: bool = False
    stdinOnce: bool = False
    tty: bool = False

    @property
    def is_sidecar(self) -> bool:
        """An init container with restartPolicy Always: it keeps running beside the main containers."""
        return self.restartPolicy == "Always"

    @property
    def pull_policy(self) -> str:
        """imagePullPolicy, or the API server's default: Always for `:latest` or no tag, else IfNotPresent."""
        if self.imagePullPolicy:
            return self.imagePullPolicy
        if "@" in self.image:
            return "IfNotPresent"
        _, sep, tag = self.image.rsplit("/", 1)[-1].partition(":")
        return "Always" if not sep or tag == "latest" else "IfNotPresent"


# ---------------------------------------------------------------- pod


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
    os: PodOS | None = None
    # Only the scheduler and the controllers read these; a node agent has nothing to do for them.
    serviceAccount: str = ""
    affinity: Any = None
    schedulerName: str = ""
    tolerations: Any = None
    preemptionPolicy: str | None = None
    topologySpreadConstraints: Any = None
    schedulingGates: Any = None


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


class ApiPodStatus(K8sStruct, frozen=True):
    """What the agent reads back of a status: conditions, so that it keeps foreign ones, and the phase."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: tuple[PodCondition, ...] = ()
    startTime: str | None = None
    containerStatuses: tuple[ApiContainerStatus, ...] = ()
    initContainerStatuses: tuple[ApiContainerStatus, ...] = ()


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
