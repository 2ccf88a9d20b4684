"""A container as the API server writes it: environment, ports, resources, security, probes and hooks.

Source of names and defaults: the Kubernetes API reference, core/v1.
"""

from __future__ import annotations

from agent.model.meta import K8sStruct, Quantity
from agent.model.volume import (
    KeySelector,
    ObjectFieldSelector,
    ObjectSource,
    ResourceFieldSelector,
    VolumeDevice,
    VolumeMount,
)


class FileKeySelector(K8sStruct, frozen=True):
    """A key of a file of assignments that another container wrote into an emptyDir."""

    volumeName: str
    path: str
    key: str
    optional: bool | None = None


class EnvVarSource(K8sStruct, frozen=True):
    fieldRef: ObjectFieldSelector | None = None
    resourceFieldRef: ResourceFieldSelector | None = None
    configMapKeyRef: KeySelector | None = None
    secretKeyRef: KeySelector | None = None
    fileKeyRef: FileKeySelector | None = None


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


class ContainerRestartRuleOnExitCodes(K8sStruct, frozen=True):
    operator: str
    values: tuple[int, ...] = ()


class ContainerRestartRule(K8sStruct, frozen=True):
    action: str
    exitCodes: ContainerRestartRuleOnExitCodes | None = None


class ContainerResizePolicy(K8sStruct, frozen=True):
    resourceName: str
    restartPolicy: str = "NotRequired"


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
    resizePolicy: tuple[ContainerResizePolicy, ...] = ()
    volumeMounts: tuple[VolumeMount, ...] = ()
    volumeDevices: tuple[VolumeDevice, ...] = ()
    restartPolicy: str | None = None
    restartPolicyRules: tuple[ContainerRestartRule, ...] = ()
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
        """Of an init container: with restartPolicy Always it keeps running beside the main containers."""
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


class EphemeralContainer(Container, frozen=True):
    """A container that was added to a running pod (`kubectl debug`). It is started once."""

    targetContainerName: str = ""
    """Whose processes it sees; empty: as every container of the pod."""
