"""What a configMap, secret, downwardAPI or projected volume holds: file paths, bytes, modes and owners.

In: the pod, what it refers to, and the node. Out: a mapping from relative path to `PayloadFile`. Pure. A missing
object or key that is not optional, or a value that can't be had, is ValueError with the kubelet's words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from posixpath import normpath

import msgspec

from agent.model.objects import ConfigMap, Secret
from agent.model.pod import Pod
from agent.model.volume import (
    ConfigMapProjection,
    ConfigMapVolumeSource,
    DownwardAPIVolumeFile,
    KeyToPath,
    ProjectedVolumeSource,
    SecretProjection,
    ServiceAccountTokenProjection,
    Volume,
)
from agent.pods.downward import NodeContext, resource, volume_field
from agent.pods.injected_api import ROOT_CA, ROOT_CA_KEY
from agent.pods.ports import Token
from agent.pods.references import Referenced
from agent.pods.trust_bundles import anchors, trust_key

_TOKEN_MODE = 0o600


class PayloadFile(msgspec.Struct, frozen=True):
    data: bytes
    mode: int
    owner: int | None = None
    """uid of the file; None: root."""


Payload = Mapping[str, PayloadFile]
"""Relative path → file."""


def holds_payload(volume: Volume) -> bool:
    """True for the kinds whose contents the agent writes; containers see those read-only, whatever the mount says."""
    return not (
        volume.configMap is None and volume.secret is None and volume.downwardAPI is None and volume.projected is None
    )


def payload(pod: Pod, volume: Volume, referenced: Referenced, node: NodeContext) -> Payload:
    """The contents of a volume for which `holds_payload`. Raises ValueError."""
    if (config_map := volume.configMap) is not None:
        return _config_map(pod, config_map, config_map.defaultMode, referenced, node)
    if (secret := volume.secret) is not None:
        return _secret(
            pod, secret.secretName, secret.items, secret.optional, default=secret.defaultMode, referenced=referenced
        )
    if (downward := volume.downwardAPI) is not None:
        return _downward(pod, downward.items, downward.defaultMode, node)
    assert volume.projected is not None
    return _projected(pod, volume.name, volume.projected, referenced, node)


def common_user(pod: Pod) -> int | None:
    """The uid that every container of the pod is told to run as, None where they differ or one names none."""
    default = pod.spec.securityContext.runAsUser if pod.spec.securityContext is not None else None
    users = {
        container.securityContext.runAsUser
        if container.securityContext is not None and container.securityContext.runAsUser is not None
        else default
        for container in chain(pod.spec.initContainers, pod.spec.containers)
    }
    return users.pop() if len(users) == 1 else None


def _projected(
    pod: Pod, name: str, source: ProjectedVolumeSource, referenced: Referenced, node: NodeContext
) -> Payload:
    files: dict[str, PayloadFile] = {}
    problems: list[str] = []
    default = source.defaultMode
    for part in source.sources:
        try:
            if part.configMap is not None:
                files.update(_config_map(pod, part.configMap, default, referenced, node))
            elif (secret := part.secret) is not None:
                files.update(_of_secret_projection(pod, secret, default, referenced))
            elif part.downwardAPI is not None:
                files.update(_downward(pod, part.downwardAPI.items, default, node))
            elif part.serviceAccountToken is not None:
                token = _token(pod, name, part.serviceAccountToken, referenced)
                files[part.serviceAccountToken.path] = _private_file(pod, token.token.encode(), default)
            elif (bundle := part.clusterTrustBundle) is not None:
                key = trust_key(bundle)
                held = anchors(bundle, referenced.objects.get(key) if key is not None else None)
                files[bundle.path] = _private_file(pod, held, default)
            else:
                raise ValueError("a projected source of an unsupported kind")
        except ValueError as problem:
            problems.append(str(problem))
    if problems:
        raise ValueError(_joined(problems))
    return files


def _config_map(
    pod: Pod,
    source: ConfigMapVolumeSource | ConfigMapProjection,
    default: int,
    referenced: Referenced,
    node: NodeContext,
) -> Payload:
    optional = bool(source.optional)
    found = referenced.config_map(pod.metadata.namespace, source.name)
    if found is None and not optional:
        raise ValueError(f'configmap "{source.name}" not found')
    contents = _contents(found)
    if source.name == ROOT_CA and ROOT_CA_KEY in contents and node.api is not None and node.api.is_reached_by(pod):
        contents[ROOT_CA_KEY] = node.api.bundle(contents[ROOT_CA_KEY])
    return _selected(contents, source.items, default, optional, "configmap references non-existent config key")


def _of_secret_projection(pod: Pod, source: SecretProjection, default: int, referenced: Referenced) -> Payload:
    return _secret(pod, source.name, source.items, source.optional, default=default, referenced=referenced)


def _secret(
    pod: Pod,
    name: str,
    items: Sequence[KeyToPath],
    optional: bool | None,
    *,
    default: int,
    referenced: Referenced,
) -> Payload:
    found = referenced.secret(pod.metadata.namespace, name)
    if found is None and not optional:
        raise ValueError(f'secret "{name}" not found')
    return _selected(_contents(found), items, default, bool(optional), "references non-existent secret key")


def _contents(found: ConfigMap | Secret | None) -> dict[str, bytes]:
    if found is None:
        return {}
    try:
        return found.contents()
    except msgspec.ValidationError as error:
        raise ValueError(f"{found.metadata.name}: {error}") from error


def _selected(
    contents: Mapping[str, bytes], items: Iterable[KeyToPath], default: int, optional: bool, no_such_key: str
) -> Payload:
    """All keys under their own names, or just the listed ones under theirs."""
    if not items:
        return {key: PayloadFile(data, default) for key, data in contents.items()}
    files: dict[str, PayloadFile] = {}
    for item in items:
        if item.key in contents:
            files[item.path] = PayloadFile(contents[item.key], default if item.mode is None else item.mode)
        elif not optional:
            raise ValueError(f"{no_such_key}: {item.key}")
    return files


def _downward(pod: Pod, items: Sequence[DownwardAPIVolumeFile], default: int, node: NodeContext) -> Payload:
    files: dict[str, PayloadFile] = {}
    problems: list[str] = []
    for item in items:
        try:
            if item.fieldRef is not None:
                text = volume_field(pod, item.fieldRef.fieldPath)
            elif item.resourceFieldRef is not None:
                text = resource(pod, item.resourceFieldRef, node)
            else:
                raise ValueError(f"{item.path}: neither fieldRef nor resourceFieldRef")
        except ValueError as problem:
            problems.append(str(problem))
            continue
        mode = default if item.mode is None else item.mode
        files[normpath(item.path)] = PayloadFile(text.encode(), mode)
    if problems:
        raise ValueError(_joined(problems))
    return files


def _token(pod: Pod, volume: str, source: ServiceAccountTokenProjection, referenced: Referenced) -> Token:
    token = referenced.tokens.get((volume, source.path))
    if not isinstance(token, Token):
        account = pod.spec.serviceAccountName or "default"
        raise ValueError(f'failed to fetch token: serviceaccounts "{account}" not found')
    return token


def _private_file(pod: Pod, data: bytes, default: int) -> PayloadFile:
    """For one user or one group where the pod names one; fsGroup adds its read bit later."""
    user = common_user(pod)
    group = pod.spec.securityContext.fsGroup if pod.spec.securityContext is not None else None
    mode = default if user is None and group is None else _TOKEN_MODE
    return PayloadFile(data, mode, owner=user)


def _joined(problems: Sequence[str]) -> str:
    unique = list(dict.fromkeys(problems))
    return unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]"
