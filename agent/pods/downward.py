"""The downward API: what a pod may learn of itself, as text.

In: the pod, a field path or a resource name, and what this node knows (`NodeContext`). Out: the value as the kubelet
writes it into an environment variable or a file. Pure. Raises ValueError with one line for what is not offered.

Source: the Kubernetes page "Downward API", and the API reference of ObjectFieldSelector and ResourceFieldSelector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from agent.model.container import Container
from agent.model.meta import Quantity
from agent.model.pod import Pod
from agent.model.quantity import ceil_milli, ceil_units, parse
from agent.model.volume import ResourceFieldSelector
from agent.pods.injected_api import InjectedApi
from agent.pods.pod_totals import whole_limits


class NodeContext(msgspec.Struct, frozen=True):
    """What a pod's values depend on besides the pod itself."""

    node_name: str
    host_ips: Sequence[str] = ()
    """The node's internal addresses, primary first."""
    pod_ips: tuple[str, ...] = ()
    """The pod's addresses, primary first; those of the host for a pod on the host's network. Env only."""
    allocatable: Mapping[str, Quantity] = msgspec.field(default_factory=dict)
    """The node's allocatable resources: what an absent limit reads as."""
    api: InjectedApi | None = None
    """What programs in pods take for the API server; None: the cluster's own."""


def env_field(pod: Pod, path: str, node: NodeContext) -> str:
    """A fieldRef of an environment variable. Raises ValueError for a path that the API does not offer there."""
    match path:
        case "spec.nodeName":
            return node.node_name
        case "spec.serviceAccountName":
            return pod.spec.serviceAccountName
        case "status.hostIP":
            return node.host_ips[0] if node.host_ips else ""
        case "status.hostIPs":
            return ",".join(node.host_ips)
        case "status.podIP":
            return node.pod_ips[0] if node.pod_ips else ""
        case "status.podIPs":
            return ",".join(node.pod_ips)
        case "metadata.labels" | "metadata.annotations":
            raise ValueError(f"fieldPath {path!r} needs a key here: {path}['KEY']")
        case _:
            return volume_field(pod, path)


def volume_field(pod: Pod, path: str) -> str:
    """A fieldRef of a file in a volume: metadata only. Raises ValueError."""
    meta = pod.metadata
    if subscripted := _SUBSCRIPT.fullmatch(path):
        owner, key = subscripted.groups()
        match owner:
            case "metadata.labels":
                return (meta.labels or {}).get(key, "")
            case "metadata.annotations":
                return (meta.annotations or {}).get(key, "")
            case _:
                raise ValueError(f"fieldPath {path!r} does not support subscript")
    match path:
        case "metadata.name":
            return meta.name
        case "metadata.namespace":
            return meta.namespace
        case "metadata.uid":
            return meta.uid
        case "metadata.labels":
            return _lines(meta.labels)
        case "metadata.annotations":
            return _lines(meta.annotations)
        case _:
            raise ValueError(f"unsupported fieldPath: {path}")


def resource(pod: Pod, selector: ResourceFieldSelector, node: NodeContext, container: str = "") -> str:
    """A resourceFieldRef, in units of its divisor, rounded up.

    `container` is the one whose environment asks, for a selector that names none. An absent limit of cpu, memory or
    ephemeral-storage reads as the node's allocatable, an absent request as 0. Raises ValueError.
    """
    asked = _container(pod, selector.containerName or container)
    side, _, name = selector.resource.partition(".")
    if side not in ("limits", "requests") or not (name in _OVERCOMMITTED or name.startswith("hugepages-")):
        raise ValueError(f"unsupported container resource: {selector.resource}")
    amount: Quantity = ((asked.resources.limits if side == "limits" else asked.resources.requests) or {}).get(name, 0)
    if side == "limits" and name in _OVERCOMMITTED and parse(amount) == 0:
        amount = whole_limits(pod).get(name, node.allocatable.get(name, 0))
    divisor = selector.divisor if parse(selector.divisor) != 0 else 1
    # The kubelet counts cpu in thousandths and everything else in whole units before it divides.
    whole = ceil_milli if name == "cpu" else ceil_units
    return str(-(-whole(amount) // whole(divisor)))


_SUBSCRIPT: Final = re.compile(r"([^\[]+)\['(.*)'\]", re.DOTALL)
_OVERCOMMITTED: Final = ("cpu", "memory", "ephemeral-storage")


def _container(pod: Pod, name: str) -> Container:
    for container in pod.spec.all_containers:
        if container.name == name:
            return container
    raise ValueError(f"container {name} not found")


def _lines(pairs: dict[str, str] | None) -> str:
    return "\n".join(f"{key}={_quoted(value)}" for key, value in sorted((pairs or {}).items()))


_ESCAPES: Final = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\\": r"\\",
    '"': r"\"",
}


def _quoted(text: str) -> str:
    """A Go string literal, which is what readers of these files parse."""
    return f'"{"".join(_escaped(char) for char in text)}"'


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
