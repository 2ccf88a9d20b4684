"""The environment of one container: service links, envFrom and env, in the API's order of precedence.

In: the pod, its container, what it refers to (ConfigMaps, Secrets, the services of its namespace) and the node's facts.
Out: name and value pairs in a stable order, and a notice for names that no process can have. A missing object or key
that is not optional is a Permanent("CreateContainerConfigError"), in the words that users know from a kubelet.
Source: the Kubernetes pages "Define Environment Variables for a Container" and "Service" (environment variables).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import msgspec

from agent.errors import Permanent
from agent.model.container import Container, EnvFromSource, EnvVar, EnvVarSource, FileKeySelector
from agent.model.objects import ConfigMap, Secret, Service
from agent.model.pod import Pod
from agent.model.volume import KeySelector, ObjectSource
from agent.pods.downward import NodeContext, env_field, resource
from agent.pods.env_files import EnvFiles, parse
from agent.pods.expansion import expand
from agent.pods.references import Referenced
from agent.pods.translate.context import Notice

_REASON = "CreateContainerConfigError"
_API_SERVICE = ("default", "kubernetes")


class EnvResult(msgspec.Struct, frozen=True):
    env: tuple[tuple[str, str], ...]
    """Values that are not UTF-8 hold their bytes as surrogates (`surrogateescape`)."""
    notices: tuple[Notice, ...] = ()


def build_env(
    pod: Pod, container: Container, referenced: Referenced, node: NodeContext, files: EnvFiles = MappingProxyType({})
) -> EnvResult:
    """`files`: what `fileKeyRef` names. Raises Permanent("CreateContainerConfigError")."""
    notices: list[Notice] = []
    from_services = service_env(referenced.services, pod.metadata.namespace, links=pod.spec.enableServiceLinks)
    if node.api is not None and node.api.is_reached_by(pod):
        from_services = {**from_services, **node.api.variables()}
    env: dict[str, str] = {}
    for source in container.envFrom:
        pairs = _of_source(source, pod, referenced)
        env.update((name, value) for name, value in pairs.items() if _is_name(name))
        if invalid := sorted(name for name in pairs if not _is_name(name)):
            notices.append(_skipped(source, pod, invalid))
    for variable in container.env:
        value = _value(variable, env, from_services, pod, container, referenced, node, files)
        if value is not None:
            # Moved to the end: what is defined last is what later ones may refer to.
            env.pop(variable.name, None)
            env[variable.name] = value
    services = {name: value for name, value in from_services.items() if name not in env}
    return EnvResult(tuple({**services, **env}.items()), tuple(notices))


def service_env(services: Iterable[Service], namespace: str, *, links: bool) -> Mapping[str, str]:
    """HOST, PORT and link variables of the namespace's services (`links`) and always of the API server's own.

    A service of the pod's namespace wins over the API server's where both are called `kubernetes`.
    """
    chosen: dict[str, Service] = {}
    for service in services:
        name = service.metadata.name
        if service.spec.clusterIP in ("", "None") or not service.spec.ports:
            continue
        if (service.metadata.namespace, name) == _API_SERVICE:
            chosen.setdefault(name, service)
        elif links and service.metadata.namespace == namespace:
            chosen[name] = service
    return {key: value for name in sorted(chosen) for key, value in _service_pairs(chosen[name])}


def _service_pairs(service: Service) -> Iterator[tuple[str, str]]:
    prefix = _as_name(service.metadata.name)
    address, ports = service.spec.clusterIP, service.spec.ports
    yield f"{prefix}_SERVICE_HOST", address
    yield f"{prefix}_SERVICE_PORT", str(ports[0].port)
    for port in ports:
        if port.name:
            yield f"{prefix}_SERVICE_PORT_{_as_name(port.name)}", str(port.port)
    host = f"[{address}]" if ":" in address else address
    for index, port in enumerate(ports):
        url = f"{port.protocol.lower()}://{host}:{port.port}"
        if index == 0:
            yield f"{prefix}_PORT", url
        one = f"{prefix}_PORT_{port.port}_{port.protocol.upper()}"
        yield one, url
        yield f"{one}_PROTO", port.protocol.lower()
        yield f"{one}_PORT", str(port.port)
        yield f"{one}_ADDR", address


def _as_name(text: str) -> str:
    return text.replace("-", "_").upper()


def _of_source(source: EnvFromSource, pod: Pod, referenced: Referenced) -> Mapping[str, str]:
    pairs: Mapping[str, str] = {}
    if source.configMapRef is not None:
        pairs = _config_map_pairs(_config_map(source.configMapRef, pod, referenced))
    elif source.secretRef is not None:
        pairs = _secret_pairs(_secret(source.secretRef, pod, referenced))
    return {source.prefix + key: value for key, value in sorted(pairs.items())}


def _value(
    variable: EnvVar,
    env: Mapping[str, str],
    from_services: Mapping[str, str],
    pod: Pod,
    container: Container,
    referenced: Referenced,
    node: NodeContext,
    files: EnvFiles,
) -> str | None:
    """The variable's value, None where its optional source is absent: then the variable is not set at all."""
    if variable.value:
        return expand(variable.value, env, from_services)
    if variable.valueFrom is None:
        return ""
    try:
        return _value_from(variable.valueFrom, pod, container, referenced, node, files)
    except ValueError as error:
        raise Permanent(_REASON, f"env {variable.name}: {error}") from error


def _value_from(
    source: EnvVarSource,
    pod: Pod,
    container: Container,
    referenced: Referenced,
    node: NodeContext,
    files: EnvFiles,
) -> str | None:
    match source:
        case EnvVarSource(fieldRef=ref) if ref is not None:
            return env_field(pod, ref.fieldPath, node)
        case EnvVarSource(resourceFieldRef=selector) if selector is not None:
            return resource(pod, selector, node, container.name)
        case EnvVarSource(configMapKeyRef=ref) if ref is not None:
            pairs = _config_map_pairs(_config_map(ref, pod, referenced))
            return _key(ref, pairs, f"ConfigMap {pod.metadata.namespace}/{ref.name}")
        case EnvVarSource(secretKeyRef=ref) if ref is not None:
            pairs = _secret_pairs(_secret(ref, pod, referenced))
            return _key(ref, pairs, f"Secret {pod.metadata.namespace}/{ref.name}")
        case EnvVarSource(fileKeyRef=file) if file is not None:
            return _of_file(file, files)
        case _:
            raise ValueError("valueFrom names no source")


def _key(ref: KeySelector, pairs: Mapping[str, str], owner: str) -> str | None:
    if ref.key not in pairs and not ref.optional:
        raise Permanent(_REASON, f"couldn't find key {ref.key} in {owner}")
    return pairs.get(ref.key)


def _of_file(ref: FileKeySelector, files: EnvFiles) -> str | None:
    text = files.get((ref.volumeName, ref.path))
    if text is None and not ref.optional:
        raise Permanent(_REASON, "couldn't parse env file")
    try:
        value = parse(text or "", ref.key)
    except ValueError as error:
        raise Permanent(_REASON, f"couldn't parse env file: {error}") from error
    if not value and not ref.optional:
        raise Permanent(_REASON, f'environment variable key "{ref.key}" not found in file "{ref.path}"')
    return value or None


def _config_map(ref: ObjectSource | KeySelector, pod: Pod, referenced: Referenced) -> ConfigMap | None:
    found = referenced.config_map(pod.metadata.namespace, ref.name)
    if found is None and not ref.optional:
        raise Permanent(_REASON, f'configmap "{ref.name}" not found')
    return found


def _secret(ref: ObjectSource | KeySelector, pod: Pod, referenced: Referenced) -> Secret | None:
    found = referenced.secret(pod.metadata.namespace, ref.name)
    if found is None and not ref.optional:
        raise Permanent(_REASON, f'secret "{ref.name}" not found')
    return found


def _config_map_pairs(found: ConfigMap | None) -> Mapping[str, str]:
    """Text only: binaryData never reaches an environment."""
    return found.data if found is not None else {}


def _secret_pairs(found: Secret | None) -> Mapping[str, str]:
    contents = found.contents() if found is not None else {}
    return {key: value.decode("utf-8", "surrogateescape") for key, value in contents.items()}


def _is_name(name: str) -> bool:
    """What the API takes as a variable's name since it stopped asking for C identifiers: printable ASCII but `=`."""
    return bool(name) and all(" " <= char <= "~" and char != "=" for char in name)


def _skipped(source: EnvFromSource, pod: Pod, names: list[str]) -> Notice:
    if source.configMapRef is not None:
        owner = f"ConfigMap {pod.metadata.namespace}/{source.configMapRef.name}"
    else:
        owner = f"Secret {pod.metadata.namespace}/{source.secretRef.name if source.secretRef else ''}"
    return Notice(
        "InvalidEnvironmentVariableNames",
        f"Keys [{', '.join(names)}] from the EnvFrom {owner} were skipped since they are considered invalid "
        "environment variable names.",
    )
