"""Judge a pod that has just come: does this node take it?

In: the pod and its claim, the node, what the runtime offers, and the claims of all pods that the node took before and
that have not ended. Out: every reason against it, the kubelet's own words first to last; none: it is taken. Who was
taken once is never judged again, so nothing here looks at pods that run.
Source: the kubelet's admission handlers; other tools match on these reasons and messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec.structs import replace

from agent.model import quantity
from agent.model.node import OS_LABEL, NodeFacts
from agent.model.pod import Pod
from agent.pods.admission.claim import Amounts, Claim
from agent.pods.admission.selectors import matches_node, tolerates
from agent.pods.sysctls import FORBIDDEN_REASON, forbidden_sysctl

NODE_AFFINITY = "NodeAffinity"
_RESOURCES_FIRST = ("cpu", "memory", "ephemeral-storage")


class Rejection(msgspec.Struct, frozen=True):
    reason: str
    message: str
    missing: int = 0
    """How much of `resource` is missing, in the claim's units."""
    resource: str = ""


class Offers(msgspec.Struct, frozen=True):
    """What pods may ask of this node's runtime and kernel."""

    allowed_sysctls: tuple[str, ...] = ()
    """Names, and prefixes with `*`, of kernel parameters."""
    supplemental_groups_policy: bool = False
    app_armor: bool = True


def judge(pod: Pod, wanted: Claim, node: NodeFacts, others: Iterable[Claim], offers: Offers) -> tuple[Rejection, ...]:
    """Every reason against the pod; what would never hold on this node comes alone and first."""
    for_good = next(_for_good(pod, offers), None)
    if for_good is not None:
        return (for_good,)
    against = (*resources(wanted, node, tuple(others)), *_placement(pod, wanted, node, tuple(others)))
    if against:
        return against
    if not offers.app_armor and _asks_app_armor(pod):
        return (Rejection("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"),)
    return ()


def _for_good(pod: Pod, offers: Offers) -> Iterator[Rejection]:
    if (sysctl := forbidden_sysctl(pod, offers.allowed_sysctls)) is not None:
        yield Rejection(FORBIDDEN_REASON, sysctl)
    if (pod.metadata.labels or {}).get(OS_LABEL, "linux") != "linux":
        yield Rejection(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        )
    if pod.spec.os is not None and pod.spec.os.name != "linux":
        yield Rejection("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
    security = pod.spec.securityContext
    if security and security.supplementalGroupsPolicy == "Strict" and not offers.supplemental_groups_policy:
        yield Rejection(
            "SupplementalGroupsPolicyNotSupported", "SupplementalGroupsPolicy=Strict is not supported in this node"
        )


def resources(wanted: Claim, node: NodeFacts, others: tuple[Claim, ...]) -> Iterator[Rejection]:
    room = allocatable(node)
    pods = room.get("pods", 0)
    if len(others) + 1 > pods:
        yield _out_of("pods", 1, len(others), pods)
    for name in sorted(wanted.requests, key=_resource_order):
        if _is_extended(name) and name not in room:
            # A resource of the whole cluster, or one that nobody on the node counts.
            continue
        asked, free_of = wanted.requests[name], room.get(name, 0)
        used = sum(other.requests.get(name, 0) for other in others)
        if asked > free_of - used:
            yield _out_of(name, asked, used, free_of)


def too_much(wanted: Claim, node: NodeFacts) -> Iterator[str]:
    """What the node would not have if it were empty, and other programs used nothing of it."""
    room = allocatable(node if node.usual is None else replace(node, allocatable=node.usual))
    for name in ("cpu", "memory"):
        if (asked := wanted.requests.get(name, 0)) > room.get(name, asked):
            yield f"Node didn't have enough capacity: {name}, requested: {asked}, capacity: {room[name]}"


def _placement(pod: Pod, wanted: Claim, node: NodeFacts, others: tuple[Claim, ...]) -> Iterator[Rejection]:
    if not matches_node(pod.spec, node):
        yield _failed(NODE_AFFINITY, "node(s) didn't match Pod's node affinity/selector")
    if pod.spec.nodeName not in ("", node.name):
        yield _failed("NodeName", "node(s) didn't match the requested node name")
    taken = [port for other in others for port in other.ports]
    if any(port.collides(held) for port in wanted.ports for held in taken):
        yield _failed("NodePorts", "node(s) didn't have free ports for the requested pod ports")
    expelling = [taint for taint in node.taints if taint.effect == "NoExecute"]
    if not pod.is_static and not all(tolerates(pod.spec.tolerations, taint) for taint in expelling):
        yield _failed("TaintToleration", "node(s) had taints that the pod didn't tolerate")


def allocatable(node: NodeFacts) -> Amounts:
    """The node's room in the claims' units; a quantity that cannot be read is no room."""
    room: Amounts = {}
    for name, text in node.allocatable.items():
        try:
            # Room is rounded down, where requests are rounded up.
            room[name] = int(quantity.parse(text) * (1000 if name == "cpu" else 1))
        except ValueError:
            room[name] = 0
    return room


def _out_of(name: str, asked: int, used: int, capacity: int) -> Rejection:
    return Rejection(
        f"OutOf{name}",
        f"Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}",
        missing=asked - (capacity - used),
        resource=name,
    )


def _failed(rule: str, why: str) -> Rejection:
    return Rejection(rule, f"Predicate {rule} failed: {why}")


def _resource_order(name: str) -> tuple[int, str]:
    return (_RESOURCES_FIRST.index(name) if name in _RESOURCES_FIRST else len(_RESOURCES_FIRST), name)


def _is_extended(name: str) -> bool:
    return "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")


def _asks_app_armor(pod: Pod) -> bool:
    """Whether any container wants a profile: its own, the older annotation's, or the pod's."""
    of_pod = pod.spec.securityContext.appArmorProfile if pod.spec.securityContext else None
    annotations: Mapping[str, str] = pod.metadata.annotations or {}
    for container in (*pod.spec.initContainers, *pod.spec.containers):
        own = container.securityContext.appArmorProfile if container.securityContext else None
        noted = annotations.get(f"container.apparmor.security.beta.kubernetes.io/{container.name}", "")
        profile = own.type if own else noted or (of_pod.type if of_pod else "")
        if profile and profile.lower() != "unconfined":
            return True
    return False
