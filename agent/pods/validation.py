"""What the API server would not have let through, for pods that never met one.

In: a pod as a manifest has it, a dict without nulls. Out: one refusal for each fault, by field path, in the API
server's terms (Required value, Invalid value, Duplicate value, Not found, Forbidden). Pure. What is valid and cannot be
performed here is the business of `agent.pods.support`. Source of the rules: the Kubernetes API reference, core/v1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any

import msgspec

from agent.model.pod import Pod, PodSpec, pod_from_dict
from agent.model.volume import Volume
from agent.pods.support import Refusal
from agent.pods.validation_containers import containers
from agent.pods.validation_rules import duplicates, invalid, is_label, is_subdomain, not_negative, one_of, required

_TYPE_ERROR = re.compile(r"(?P<why>.*?)(?: - at (?:`key` in )?`\$\.?(?P<path>.*)`)?")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_KEY_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

_HOST_PATH_TYPES = (
    "",
    "DirectoryOrCreate",
    "Directory",
    "FileOrCreate",
    "File",
    "Socket",
    "CharDevice",
    "BlockDevice",
)


def faults(raw_pod: Mapping[str, Any]) -> tuple[Refusal, ...]:
    """Every fault, in the order of the pod; empty: the API server would take it. A wrong type hides all others."""
    try:
        pod = pod_from_dict(dict(raw_pod))
    except msgspec.ValidationError as error:
        return (_type_fault(str(error)),)
    return (*_metadata(pod), *_volumes(pod, raw_pod["spec"]), *containers(pod.spec), *_pod(pod.spec))


def api_references(pod: Pod) -> tuple[Refusal, ...]:
    """The fields that name objects of the API server, which a pod that is not from there may not do."""
    return tuple(Refusal(path, "Forbidden: static pods may not refer to API objects") for path in _references(pod.spec))


def _type_fault(message: str) -> Refusal:
    match = _TYPE_ERROR.fullmatch(message)
    assert match is not None
    why, path = match["why"], match["path"] or ""
    if missing := _MISSING.fullmatch(why):
        return required(f"{path}.{missing[1]}".lstrip("."))
    return Refusal(path or "pod", f"Invalid value: {why.replace('`', '').replace('Expected', 'expected')}")


def _metadata(pod: Pod) -> Iterator[Refusal]:
    meta = pod.metadata
    if not meta.name:
        yield required("metadata.name")
    elif not is_subdomain(meta.name):
        yield invalid("metadata.name", meta.name, "must be a lowercase DNS name of at most 253 characters")
    if meta.namespace and not is_label(meta.namespace):
        yield invalid("metadata.namespace", meta.namespace, "must be a lowercase DNS label")
    for key, value in (meta.labels or {}).items():
        yield from _qualified("metadata.labels", key)
        if value and _KEY_NAME.fullmatch(value) is None:
            why = "must be at most 63 letters, digits, '-', '_' or '.', and begin and end with a letter or digit"
            yield invalid(f"metadata.labels[{key}]", value, why)
    for key in meta.annotations or {}:
        yield from _qualified("metadata.annotations", key)


def _qualified(path: str, key: str) -> Iterator[Refusal]:
    prefix, slash, name = key.rpartition("/")
    if _KEY_NAME.fullmatch(name) is None or (slash and not is_subdomain(prefix.lower())):
        yield invalid(path, key, "must be a name, or a DNS name, a slash and a name")


def _pod(spec: PodSpec) -> Iterator[Refusal]:
    yield from one_of("spec.restartPolicy", spec.restartPolicy, ("Always", "OnFailure", "Never"))
    policies = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
    yield from one_of("spec.dnsPolicy", spec.dnsPolicy, policies)
    if spec.dnsPolicy == "None" and (spec.dnsConfig is None or not spec.dnsConfig.nameservers):
        yield required("spec.dnsConfig.nameservers", "must be given with dnsPolicy None")
    yield from not_negative("spec.terminationGracePeriodSeconds", spec.terminationGracePeriodSeconds)
    if spec.activeDeadlineSeconds is not None and spec.activeDeadlineSeconds < 1:
        yield invalid("spec.activeDeadlineSeconds", spec.activeDeadlineSeconds, "must be greater than 0")
    for name in ("hostname", "subdomain"):
        value = getattr(spec, name)
        if value and not is_label(value):
            yield invalid(f"spec.{name}", value, "must be a lowercase DNS label")
    for index, alias in enumerate(spec.hostAliases):
        path = f"spec.hostAliases[{index}]"
        if not _is_address(alias.ip):
            yield invalid(f"{path}.ip", alias.ip, "must be an IP address")
        for number, hostname in enumerate(alias.hostnames):
            if not is_subdomain(hostname):
                yield invalid(f"{path}.hostnames[{number}]", hostname, "must be a lowercase DNS name")
    if spec.shareProcessNamespace and spec.hostPID:
        yield invalid("spec.shareProcessNamespace", True, "cannot be true together with hostPID")
    if (context := spec.securityContext) is not None:
        for name in ("runAsUser", "runAsGroup", "fsGroup"):
            yield from not_negative(f"spec.securityContext.{name}", getattr(context, name))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _volumes(pod: Pod, raw_spec: Mapping[str, Any]) -> Iterator[Refusal]:
    spec = pod.spec
    yield from duplicates("spec.volumes", "name", (volume.name for volume in spec.volumes))
    for index, volume in enumerate(spec.volumes):
        path = f"spec.volumes[{index}]"
        if not is_label(volume.name):
            yield invalid(f"{path}.name", volume.name, "must be a lowercase DNS label")
        # The raw volume, because the typed view lacks the kinds that this node cannot mount.
        kinds = sorted(set(raw_spec["volumes"][index]) - {"name"})
        if not kinds:
            yield required(path, "must have a volume type")
        if len(kinds) > 1:
            yield Refusal(path, f"Forbidden: may not have more than one volume type ({', '.join(kinds)})")
        yield from _source(volume, path)


def _source(volume: Volume, path: str) -> Iterator[Refusal]:
    if (host := volume.hostPath) is not None:
        if not host.path:
            yield required(f"{path}.hostPath.path")
        elif ".." in host.path.split("/"):
            yield invalid(f"{path}.hostPath.path", host.path, "must not contain '..'")
        yield from one_of(f"{path}.hostPath.type", host.type, _HOST_PATH_TYPES)
    files = [(f"{path}.downwardAPI.items", volume.downwardAPI.items)] if volume.downwardAPI is not None else []
    if volume.projected is not None:
        for index, source in enumerate(volume.projected.sources):
            if source.downwardAPI is not None:
                files.append((f"{path}.projected.sources[{index}].downwardAPI.items", source.downwardAPI.items))
    for where, items in files:
        for index, item in enumerate(items):
            at = f"{where}[{index}]"
            if not item.path:
                yield required(f"{at}.path")
            elif item.path.startswith("/") or ".." in item.path.split("/"):
                yield invalid(f"{at}.path", item.path, "must be a relative path without '..'")
            if (item.fieldRef is None) == (item.resourceFieldRef is None):
                yield required(at, "must have exactly one of fieldRef and resourceFieldRef")


def _references(spec: PodSpec) -> Iterator[str]:
    if spec.serviceAccountName or spec.serviceAccount:
        yield "spec.serviceAccountName"
    for index, _ in enumerate(spec.imagePullSecrets):
        yield f"spec.imagePullSecrets[{index}]"
    for index, volume in enumerate(spec.volumes):
        path = f"spec.volumes[{index}]"
        for kind in ("configMap", "secret", "persistentVolumeClaim", "ephemeral"):
            if getattr(volume, kind) is not None:
                yield f"{path}.{kind}"
        for number, source in enumerate(volume.projected.sources if volume.projected is not None else ()):
            for kind in ("configMap", "secret", "serviceAccountToken", "clusterTrustBundle"):
                if getattr(source, kind) is not None:
                    yield f"{path}.projected.sources[{number}].{kind}"
    for group in ("initContainers", "containers"):
        for index, container in enumerate(getattr(spec, group)):
            path = f"spec.{group}[{index}]"
            for number, env in enumerate(container.env):
                for kind in ("configMapKeyRef", "secretKeyRef"):
                    if env.valueFrom is not None and getattr(env.valueFrom, kind) is not None:
                        yield f"{path}.env[{number}].valueFrom.{kind}"
            for number, source in enumerate(container.envFrom):
                yield f"{path}.envFrom[{number}]." + ("configMapRef" if source.configMapRef else "secretRef")
