"""What of a container's memory the version 2 cgroup is told beside its limit: protection, throttling and swap.

In: a pod, one of its containers and the node's rules. Out: values of the cgroup's files, by name, for the CRI's
`unified`. Pure; formulas are the kubelet's.
Source: the Kubernetes pages "Memory QoS" and "Swap memory management"; the kernel's cgroup-v2.
"""

from __future__ import annotations

from math import floor

from agent.model import quantity
from agent.model.container import Container
from agent.model.pod import Pod
from agent.pods.pod_totals import effective_requests, limits_of
from agent.pods.qos import QosClass, qos_class
from agent.pods.translate.context import MemoryRules

CRITICAL_PRIORITY = 2_000_000_000


def memory_files(pod: Pod, container: Container, rules: MemoryRules) -> dict[str, str]:
    """Nothing on version 1. Raises ValueError where a quantity cannot be read."""
    request = quantity.ceil_units(effective_requests(container.resources).get("memory", 0))
    limit = quantity.ceil_units(limits_of(container).get("memory", 0))
    found: dict[str, str] = {}
    if rules.swap:
        found["memory.swap.max"] = str(_swap(pod, request, limit, rules))
    if not rules.qos:
        return found
    protected = request if rules.protect else 0
    guaranteed = qos_class(pod) is QosClass.GUARANTEED
    found["memory.min"] = str(protected if guaranteed else 0)
    found["memory.low"] = str(0 if guaranteed else protected)
    # One that may have just what it requests is never throttled: it would be all its life.
    if request != limit and (high := _high(request, limit or rules.allocatable_bytes, rules)) > request:
        found["memory.high"] = str(high)
    return found


def _high(request: int, bound: int, rules: MemoryRules) -> int:
    if not bound:
        return 0
    return floor((request + (bound - request) * rules.throttling_factor) / rules.page_bytes) * rules.page_bytes


def _swap(pod: Pod, request: int, limit: int, rules: MemoryRules) -> int:
    """The container's share of the swap space, by its request's share of the memory; only of Burstable pods."""
    critical = pod.is_static or (pod.spec.priority or 0) >= CRITICAL_PRIORITY
    if not rules.limited_swap or critical or qos_class(pod) is not QosClass.BURSTABLE:
        return 0
    if not request or request == limit or not 0 < request <= rules.capacity_bytes:
        return 0
    return int(request / rules.capacity_bytes * rules.swap_bytes)
