"""Requests and limits to the CRI's Linux resources.

In: a container (or a whole pod) and the node's memory. Out: cpu shares and quota, memory limit, OOM score and huge
pages, computed as a kubelet does, so that a node's pods weigh the same under either.
Source: the Kubernetes page "Resource Management for Pods and Containers", CRI LinuxContainerResources.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import ceil

from agent.cri._generated import api_pb2
from agent.model import quantity
from agent.model.container import Container
from agent.model.meta import Quantity
from agent.model.pod import Pod
from agent.pods.pod_totals import (
    HUGEPAGES,
    effective_requests,
    limits_of,
    parsed,
    pod_limits,
    pod_requests,
    pod_total,
    requests_of,
    whole_limits,
    whole_requests,
)
from agent.pods.qos import QosClass, qos_class
from agent.pods.translate.context import TranslateContext
from agent.pods.translate.memory import memory_files

CPU_PERIOD_US = 100_000
_MIN_QUOTA_US = 1_000
_MIN_SHARES, _MAX_SHARES = 2, 262_144

_GUARANTEED_SCORE = -997
_BEST_EFFORT_SCORE = 1000
_NODE_CRITICAL = "system-node-critical"
_CRITICAL_PRIORITY = 2_000_000_000


def cpu_shares(milli_cpu: int) -> int:
    return min(max(milli_cpu * 1024 // 1000, _MIN_SHARES), _MAX_SHARES)


def cpu_quota_us(milli_cpu: int) -> int:
    """Microseconds of CPU in each period; 0 where there is no limit. The kernel takes no quota below 1 ms."""
    return max(milli_cpu * CPU_PERIOD_US // 1000, _MIN_QUOTA_US) if milli_cpu else 0


def container_resources(pod: Pod, container: Container, context: TranslateContext) -> api_pb2.LinuxContainerResources:
    """Raises ValueError where a quantity cannot be read."""
    limits = container_limits(pod, container)
    requests = {"cpu": limits.get("cpu", 0), **effective_requests(container.resources)}
    resources = _linux(parsed(requests), parsed(limits))
    if not context.cpu_quota:
        resources.cpu_period = resources.cpu_quota = 0
    resources.oom_score_adj = oom_score_adj(pod, container, context.memory_capacity_bytes)
    resources.hugepage_limits.extend(_hugepage_limits(limits, context.hugepage_sizes))
    if context.oom_kill_whole_container:
        resources.unified["memory.oom.group"] = "1"
    for name, value in memory_files(pod, container, context.memory).items():
        resources.unified[name] = value
    return resources


def container_limits(pod: Pod, container: Container) -> Mapping[str, Quantity]:
    """The container's, and the pod's own where the container has none: it can have no more than all of it."""
    own = {name: amount for name, amount in limits_of(container).items() if quantity.parse(amount)}
    return {**whole_limits(pod), **own}


def sandbox_resources(pod: Pod) -> api_pb2.LinuxContainerResources:
    """The pod's sum, overhead left out: what a runtime that sizes the sandbox (a VM) must reserve."""
    return _linux(pod_requests(pod, overhead=False), pod_limits(pod, overhead=False))


def sandbox_overhead(pod: Pod) -> api_pb2.LinuxContainerResources:
    overhead = parsed(pod.spec.overhead or {})
    return _linux(overhead, overhead) if overhead else api_pb2.LinuxContainerResources()


def oom_score_adj(pod: Pod, container: Container, memory_capacity_bytes: int) -> int:
    """How early the kernel ends the container when memory runs out: the smaller its request, the earlier."""
    if pod.spec.priorityClassName == _NODE_CRITICAL and (
        pod.is_static or (pod.spec.priority or 0) >= _CRITICAL_PRIORITY
    ):
        return _GUARANTEED_SCORE
    match qos_class(pod):
        case QosClass.GUARANTEED:
            return _GUARANTEED_SCORE
        case QosClass.BEST_EFFORT:
            return _BEST_EFFORT_SCORE
    request = _memory_request(container) + (spare := _memory_to_share(pod))
    if container.is_sidecar and container in pod.spec.initContainers:
        # A sidecar must not go before the containers that it serves.
        request = max(request, min((_memory_request(main) + spare for main in pod.spec.containers), default=0))
    score = 1000 - 1000 * request // memory_capacity_bytes
    return min(max(score, 1000 + _GUARANTEED_SCORE), _BEST_EFFORT_SCORE - 1)


def _linux(requests: Mapping[str, Fraction], limits: Mapping[str, Fraction]) -> api_pb2.LinuxContainerResources:
    return api_pb2.LinuxContainerResources(
        cpu_shares=cpu_shares(ceil(requests.get("cpu", 0) * 1000)),
        cpu_period=CPU_PERIOD_US,
        cpu_quota=cpu_quota_us(ceil(limits.get("cpu", 0) * 1000)),
        memory_limit_in_bytes=ceil(limits.get("memory", 0)),
    )


def _memory_request(container: Container) -> int:
    return quantity.ceil_units(effective_requests(container.resources).get("memory", 0))


def _memory_to_share(pod: Pod) -> int:
    """What the pod as a whole requests above the sum of its containers, in equal parts."""
    if (whole := whole_requests(pod).get("memory")) is None:
        return 0
    count = len(pod.spec.containers) + len(pod.spec.initContainers)
    return (quantity.ceil_units(whole) - ceil(pod_total(pod, requests_of).get("memory", 0))) // max(count, 1)


def _hugepage_limits(limits: Mapping[str, Quantity], sizes: Iterable[str]) -> list[api_pb2.HugepageLimit]:
    """A limit for every size of the kernel, 0 where the container asks for none: unset would mean unlimited."""
    asked = {
        hugetlb_size(name.removeprefix(HUGEPAGES)): quantity.ceil_units(amount)
        for name, amount in limits.items()
        if name.startswith(HUGEPAGES)
    }
    return [api_pb2.HugepageLimit(page_size=size, limit=asked.get(size, 0)) for size in sizes]


def hugetlb_size(size: Quantity) -> str:
    """A page size ("2Mi") as the hugetlb cgroup names it: binary units with a decimal unit's letters."""
    size_bytes = quantity.ceil_units(size)
    units = ("B", "KB", "MB", "GB", "TB", "PB")
    index = 0
    while size_bytes >= 1024 and size_bytes % 1024 == 0 and index < len(units) - 1:
        size_bytes, index = size_bytes // 1024, index + 1
    return f"{size_bytes}{units[index]}"
