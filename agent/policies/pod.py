"""The policies of one pod: its own annotation, else the first rule that names it, else the node's setting, else none.

In: the pod, the defaults as they are on this node, and the namespaces whose pods may have power over the host. Out:
one value for each policy, and what is wrong with the pod's own annotations. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import msgspec

from agent.model.pod import Pod
from agent.policies.defaults import NO_DEFAULTS, Defaults
from agent.policies.fixed_ip import FixedIp
from agent.policies.log_sink import LogSink
from agent.policies.policy import Fault, Policy
from agent.policies.table import POLICIES

EVERY_NAMESPACE = "*"


class Policies(msgspec.Struct, frozen=True):
    """What holds for one pod; a default means that nobody asked for anything."""

    keep_for: float | None = None
    """Seconds that what is left of the pod stays after its end."""
    restart_on_disk: int | None = None
    """Percent of its disk at which a container is started anew."""
    ingress_bandwidth: int | None = None
    """Bits a second that the pod may receive."""
    egress_bandwidth: int | None = None
    """Bits a second that it may send."""
    fixed_ip: FixedIp | None = None
    """The pod's name keeps its address."""
    logs: LogSink | None = None
    """Where lines of all its containers go."""


NO_POLICIES = Policies()


def policies_of(
    pod: Pod, defaults: Defaults = NO_DEFAULTS, host_namespaces: Collection[str] = ()
) -> tuple[Policies, tuple[Fault, ...]]:
    """A value that cannot be read, or that its namespace may not have, is a Fault, and what comes after it holds."""
    found: dict[str, object] = {}
    faults: list[Fault] = []
    allowed = EVERY_NAMESPACE in host_namespaces or pod.metadata.namespace in host_namespaces
    for policy in POLICIES:
        for value, trusted in _asked(policy, pod, defaults):
            try:
                parsed = policy.parse(value)
            except ValueError as error:
                faults.append(Fault(policy.annotation, value, str(error)))
                continue
            if policy.power(parsed) and not (trusted or allowed):
                why = f"the node does not allow it to namespace {pod.metadata.namespace} (--policy-host-namespaces)"
                faults.append(Fault(policy.annotation, value, why))
                continue
            found[policy.field] = parsed
            break
    return Policies(**found) if found else NO_POLICIES, tuple(faults)  # type: ignore[arg-type]


def _asked(policy: Policy, pod: Pod, defaults: Defaults) -> Iterator[tuple[str, bool]]:
    """What is asked for, the nearest first; True where the machine's owner asks."""
    if (own := (pod.metadata.annotations or {}).get(policy.annotation)) is not None:
        yield own, False
    if (ruled := defaults.ruled(policy.annotation, pod)) is not None:
        yield ruled, False
    if (set_here := defaults.settings.get(policy.annotation)) is not None:
        yield set_here, True
