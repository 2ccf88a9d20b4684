"""The API server's rules for the containers of a pod. Pure; `agent.pods.validation` tells the whole story."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agent.model.container import Container, ContainerPort, EnvVar, LifecycleHandler, Probe, ResourceRequirements
from agent.model.pod import PodSpec
from agent.model.quantity import parse
from agent.pods.support import Refusal
from agent.pods.validation_rules import duplicates, invalid, is_label, not_negative, one_of, required

_ENV_NAME = re.compile(r"[ -<>-~]+")
"""Printable ASCII without '='."""
_PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9](?:[-a-z0-9]{0,13}[a-z0-9])?")
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")


def containers(spec: PodSpec) -> Iterator[Refusal]:
    if not spec.containers:
        yield required("spec.containers")
    main = [container.name for container in spec.containers]
    yield from duplicates("spec.containers", "name", main)
    yield from duplicates("spec.initContainers", "name", (c.name for c in spec.initContainers), main)
    if spec.ephemeralContainers:
        yield Refusal("spec.ephemeralContainers", "Forbidden: they are added to pods that run, by the API server")
    host_ports: set[tuple[str, int, str]] = set()
    for group in ("initContainers", "containers"):
        for index, container in enumerate(getattr(spec, group)):
            path = f"spec.{group}[{index}]"
            yield from _container(container, path, spec)
            if group == "initContainers" and not container.is_sidecar:
                yield from _ends_by_itself(container, path)
                continue
            for number, port in enumerate(container.ports):
                key = (port.protocol, port.hostPort, port.hostIP)
                if port.hostPort and key in host_ports:
                    yield Refusal(f"{path}.ports[{number}].hostPort", f"Duplicate value: {port.hostPort}")
                host_ports.add(key)


def _container(container: Container, path: str, spec: PodSpec) -> Iterator[Refusal]:
    if not container.name:
        yield required(f"{path}.name")
    elif not is_label(container.name):
        yield invalid(f"{path}.name", container.name, "must be a lowercase DNS label")
    if not container.image:
        yield required(f"{path}.image")
    elif container.image != container.image.strip():
        yield invalid(f"{path}.image", container.image, "must not have leading or trailing whitespace")
    yield from one_of(f"{path}.imagePullPolicy", container.imagePullPolicy, ("", "Always", "IfNotPresent", "Never"))
    policies = ("File", "FallbackToLogsOnError")
    yield from one_of(f"{path}.terminationMessagePolicy", container.terminationMessagePolicy, policies)
    yield from _restart(container, path)
    yield from duplicates(f"{path}.ports", "name", (port.name for port in container.ports))
    for index, port in enumerate(container.ports):
        yield from _port(port, f"{path}.ports[{index}]", spec.hostNetwork)
    for index, env in enumerate(container.env):
        yield from _env(env, f"{path}.env[{index}]")
    for index, source in enumerate(container.envFrom):
        if (source.configMapRef is None) == (source.secretRef is None):
            yield required(f"{path}.envFrom[{index}]", "must have exactly one of configMapRef and secretRef")
    yield from _mounts(container, path, spec)
    yield from _resources(container.resources, f"{path}.resources")
    if (context := container.securityContext) is not None:
        for name in ("runAsUser", "runAsGroup"):
            yield from not_negative(f"{path}.securityContext.{name}", getattr(context, name))
        if context.privileged and context.allowPrivilegeEscalation is False:
            field = f"{path}.securityContext.allowPrivilegeEscalation"
            yield invalid(field, False, "cannot be false in a privileged container")
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        if (probe := getattr(container, kind)) is not None:
            yield from _probe(probe, f"{path}.{kind}", kind)
    for hook in ("postStart", "preStop"):
        handler = getattr(container.lifecycle, hook, None)
        if handler is not None:
            yield from _handler(handler, f"{path}.lifecycle.{hook}")


def _restart(container: Container, path: str) -> Iterator[Refusal]:
    """The sets of words are closed elsewhere (`support`)."""
    if container.restartPolicyRules and container.restartPolicy is None:
        yield required(f"{path}.restartPolicy", "must specify restartPolicy when restart rules are used")
    for index, rule in enumerate(container.restartPolicyRules):
        if rule.exitCodes is None:
            yield required(f"{path}.restartPolicyRules[{index}].exitCodes", "must be specified")


def _ends_by_itself(container: Container, path: str) -> Iterator[Refusal]:
    """An init container that must end before the next starts has no use for what watches a running one."""
    for field in ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle"):
        if getattr(container, field) is not None:
            yield Refusal(f"{path}.{field}", "Forbidden: only for init containers with restartPolicy Always")


def _port(port: ContainerPort, path: str, host_network: bool) -> Iterator[Refusal]:
    if not 1 <= port.containerPort <= 65535:
        yield invalid(f"{path}.containerPort", port.containerPort, "must be between 1 and 65535")
    if not 0 <= port.hostPort <= 65535:
        yield invalid(f"{path}.hostPort", port.hostPort, "must be between 1 and 65535")
    elif host_network and port.hostPort not in (0, port.containerPort):
        yield invalid(f"{path}.hostPort", port.hostPort, "must be the containerPort on the host's network")
    if port.name and _PORT_NAME.fullmatch(port.name) is None:
        why = "must be at most 15 lowercase letters, digits and single '-', with a letter"
        yield invalid(f"{path}.name", port.name, why)
    yield from one_of(f"{path}.protocol", port.protocol, _PROTOCOLS)


def _env(env: EnvVar, path: str) -> Iterator[Refusal]:
    if not env.name:
        yield required(f"{path}.name")
    elif _ENV_NAME.fullmatch(env.name) is None:
        yield invalid(f"{path}.name", env.name, "must be printable ASCII without '='")
    if (source := env.valueFrom) is None:
        return
    if env.value:
        yield Refusal(f"{path}.valueFrom", "Forbidden: may not be given together with value")
    given = [k for k in ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef") if getattr(source, k)]
    if len(given) != 1:
        yield required(f"{path}.valueFrom", "must have exactly one source")


def _mounts(container: Container, path: str, spec: PodSpec) -> Iterator[Refusal]:
    known = {volume.name for volume in spec.volumes}
    yield from duplicates(f"{path}.volumeMounts", "mountPath", (mount.mountPath for mount in container.volumeMounts))
    for index, mount in enumerate(container.volumeMounts):
        at = f"{path}.volumeMounts[{index}]"
        if not mount.name:
            yield required(f"{at}.name")
        elif mount.name not in known:
            yield Refusal(f"{at}.name", f'Not found: "{mount.name}"')
        if not mount.mountPath:
            yield required(f"{at}.mountPath")
        if mount.subPath and mount.subPathExpr:
            yield Refusal(f"{at}.subPathExpr", "Forbidden: may not be given together with subPath")
        for field in ("subPath", "subPathExpr"):
            value = getattr(mount, field)
            if value.startswith("/") or ".." in value.split("/"):
                yield invalid(f"{at}.{field}", value, "must be a relative path without '..'")
        propagations = ("", "None", "HostToContainer", "Bidirectional")
        yield from one_of(f"{at}.mountPropagation", mount.mountPropagation or "", propagations)
        privileged = container.securityContext is not None and container.securityContext.privileged
        if mount.mountPropagation == "Bidirectional" and not privileged:
            yield Refusal(f"{at}.mountPropagation", "Forbidden: Bidirectional is for privileged containers only")


def _resources(resources: ResourceRequirements, path: str) -> Iterator[Refusal]:
    values = {}
    for kind in ("limits", "requests"):
        for name, quantity in (getattr(resources, kind) or {}).items():
            field = f"{path}.{kind}[{name}]"
            try:
                values[kind, name] = parse(quantity)
            except ValueError:
                yield invalid(field, quantity, "must be a quantity such as 100m, 1.5 or 64Mi")
                continue
            if values[kind, name] < 0:
                yield invalid(field, quantity, "must be greater than or equal to 0")
    for (kind, name), value in values.items():
        limit = values.get(("limits", name))
        if kind == "requests" and limit is not None and value > limit:
            quantity = (resources.requests or {})[name]
            yield invalid(f"{path}.requests[{name}]", quantity, f"must be less than or equal to the {name} limit")


def _probe(probe: Probe, path: str, kind: str) -> Iterator[Refusal]:
    yield from _handler(probe, path)
    yield from not_negative(f"{path}.initialDelaySeconds", probe.initialDelaySeconds)
    for name in ("timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if (value := getattr(probe, name)) < 1:
            yield invalid(f"{path}.{name}", value, "must be greater than 0")
    if kind != "readinessProbe" and probe.successThreshold > 1:
        yield invalid(f"{path}.successThreshold", probe.successThreshold, "must be 1")


def _handler(handler: Probe | LifecycleHandler, path: str) -> Iterator[Refusal]:
    given = [kind for kind in _HANDLERS if getattr(handler, kind, None) is not None]
    if len(given) != 1:
        yield required(path, "must have exactly one handler")
    if handler.exec is not None and not handler.exec.command:
        yield required(f"{path}.exec.command")
    for kind in ("httpGet", "tcpSocket", "grpc"):
        target = getattr(handler, kind, None)
        if target is not None and isinstance(target.port, int) and not 1 <= target.port <= 65535:
            yield invalid(f"{path}.{kind}.port", target.port, "must be between 1 and 65535")
