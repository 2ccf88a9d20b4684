"""What this agent cannot do for a pod, found before anything of it is made.

In: the raw pod, as a dict. Out: one refusal for each field of `spec` that the typed view (`agent.model.pod`) does not
know, and for each value that is known and not performed. Nothing that a user wrote is ever dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import msgspec

from agent.model.pod import PodSpec
from agent.model.volume import Volume

NOT_YET: dict[str, str] = {
    "spec.containers.volumeDevices": "block devices are not supported by this node",
    "spec.initContainers.volumeDevices": "block devices are not supported by this node",
    "spec.ephemeralContainers.volumeDevices": "block devices are not supported by this node",
}
"""Fields that the typed view knows and nothing performs yet, by path without indexes."""

HARMLESS: frozenset[str] = frozenset(
    {
        # Only the scheduler reads these.
        "spec.workloadRef",
        "spec.schedulingGroup",
    }
)
"""Fields without a typed view that ask nothing of a node agent, by path without indexes."""

_ALLOWED: Mapping[str, tuple[object, ...]] = {
    "spec.os.name": ("linux",),
    "spec.restartPolicy": ("Always", "OnFailure", "Never"),
    "spec.dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "spec.containers.restartPolicy": ("Always", "OnFailure", "Never"),
    "spec.initContainers.restartPolicy": ("Always", "OnFailure", "Never"),
    "spec.containers.restartPolicyRules.action": ("Restart", "RestartAllContainers"),
    "spec.initContainers.restartPolicyRules.action": ("Restart", "RestartAllContainers"),
    "spec.containers.restartPolicyRules.exitCodes.operator": ("In", "NotIn"),
    "spec.initContainers.restartPolicyRules.exitCodes.operator": ("In", "NotIn"),
    "spec.containers.ports.protocol": ("TCP", "UDP", "SCTP"),
    "spec.initContainers.ports.protocol": ("TCP", "UDP", "SCTP"),
    "spec.containers.resizePolicy.resourceName": ("cpu", "memory"),
    "spec.initContainers.resizePolicy.resourceName": ("cpu", "memory"),
    "spec.containers.resizePolicy.restartPolicy": ("NotRequired", "RestartContainer"),
    "spec.initContainers.resizePolicy.restartPolicy": ("NotRequired", "RestartContainer"),
    "spec.volumes.image.pullPolicy": ("", "Always", "IfNotPresent", "Never"),
    "spec.containers.imagePullPolicy": ("", "Always", "IfNotPresent", "Never"),
    "spec.initContainers.imagePullPolicy": ("", "Always", "IfNotPresent", "Never"),
    "spec.ephemeralContainers.imagePullPolicy": ("", "Always", "IfNotPresent", "Never"),
}
"""Fields of which only these values are performed, by path without indexes."""

_INDEX = re.compile(r"\[\d+\]")


class Refusal(msgspec.Struct, frozen=True):
    """`path` is a field path such as `spec.volumes[0].nfs`; `why` ends the sentence that the path starts."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


def unsupported(raw_pod: Mapping[str, Any]) -> tuple[Refusal, ...]:
    """Every refusal, in the order of the spec; empty: the pod can be run."""
    return tuple(_of_object(raw_pod.get("spec") or {}, PodSpec, "spec"))


def _of_object(raw: Mapping[str, Any], struct: type[msgspec.Struct], path: str) -> Iterator[Refusal]:
    known = _fields(struct)
    for name, value in raw.items():
        field_path = f"{path}.{name}"
        bare = _INDEX.sub("", field_path)
        if bare in _ALLOWED:
            if value is not None and value not in _ALLOWED[bare]:
                yield Refusal(field_path, f"{value!r} is not supported")
        elif bare in HARMLESS or _is_unset(value, struct):
            continue
        elif bare in NOT_YET:
            yield Refusal(field_path, NOT_YET[bare])
        elif name not in known:
            yield Refusal(field_path, "is not supported by this node")
        elif (inner := known[name]) is not None:
            yield from _of_value(value, inner, field_path)


def _of_value(value: Any, struct: type[msgspec.Struct], path: str) -> Iterator[Refusal]:
    if isinstance(value, Mapping):
        yield from _of_object(value, struct, path)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if isinstance(item, Mapping):
                yield from _of_object(item, struct, f"{path}[{index}]")


def _is_unset(value: Any, struct: type[msgspec.Struct]) -> bool:
    """An empty value asks for nothing; of a volume it is a choice of kind all the same (`emptyDir: {}`)."""
    return value is None or (value in ("", [], {}) and struct is not Volume)


@cache
def _fields(struct: type[msgspec.Struct]) -> Mapping[str, type[msgspec.Struct] | None]:
    """The struct's field names, each with the struct inside it where there is one."""
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    return {field.encode_name: _inner_struct(field.type) for field in info.fields}


def _inner_struct(kind: msgspec.inspect.Type) -> type[msgspec.Struct] | None:
    match kind:
        case msgspec.inspect.StructType(cls=cls):
            return cls
        case msgspec.inspect.UnionType(types=types):
            return next((found for inner in types if (found := _inner_struct(inner)) is not None), None)
        case msgspec.inspect.VarTupleType(item_type=item) | msgspec.inspect.ListType(item_type=item):
            return _inner_struct(item)
        case _:
            return None
