"""What the cgroups of the pods' tree are limited to, and which files say so.

In: a pod and the node's rules, or the node's size. Out: a CgroupLimits, and the files that hold it in either version.
Pure; values are the kubelet's, so that a node's pods weigh the same under either. A None leaves the kernel's default.
Source: the kernel's cgroup documentation (v1 controllers, cgroup-v2), and the kubelet's pod and QoS containers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil

import msgspec

from agent.model.pod import Pod
from agent.pods.cgroups import CgroupVersion
from agent.pods.pod_totals import HUGEPAGES, has_limit, pod_limits, pod_requests
from agent.pods.qos import QosClass, qos_class
from agent.pods.translate.resources import CPU_PERIOD_US, cpu_quota_us, cpu_shares, hugetlb_size

UNBOUNDED = 1 << 62
_MIN_SHARES, _MAX_SHARES = 2, 262_144


class CgroupLimits(msgspec.Struct, frozen=True):
    cpu_shares: int | None = None
    cpu_quota_us: int | None = None
    """In each 100 ms; -1: none, said aloud."""
    memory_bytes: int | None = None
    pids: int | None = None
    hugepages: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Bytes by size, named as the hugetlb cgroup does."""
    memory_min: int | None = None
    """Version 2: never reclaimed."""
    memory_low: int | None = None
    """Version 2: reclaimed last."""


class CgroupRules(msgspec.Struct, frozen=True):
    """What the node's owner decided for all pods."""

    cpu_quota: bool = True
    pod_pids: int = -1
    """For each pod; below 1: no limit of its own."""
    protect_memory: bool = False
    """Version 2: what a pod requests is kept from reclaim."""
    hugepage_sizes: tuple[str, ...] = ()
    """Those that the kernel has."""


class CgroupFile(msgspec.Struct, frozen=True):
    controller: str
    name: str
    value: str
    optional: bool = False
    """Older kernels have no such file."""


def pod_cgroup_limits(pod: Pod, rules: CgroupRules) -> CgroupLimits:
    """Raises ValueError where a quantity cannot be read."""
    qos = qos_class(pod)
    requests, limits = pod_requests(pod), pod_limits(pod)
    pages = {hugetlb_size(n.removeprefix(HUGEPAGES)): ceil(v) for n, v in requests.items() if n.startswith(HUGEPAGES)}
    shares = _MIN_SHARES if qos is QosClass.BEST_EFFORT else cpu_shares(ceil(requests.get("cpu", 0) * 1000))
    quota = cpu_quota_us(ceil(limits.get("cpu", 0) * 1000)) if rules.cpu_quota else -1
    memory = ceil(requests.get("memory", 0)) if rules.protect_memory else 0
    whole = {name: qos is not QosClass.BEST_EFFORT and has_limit(pod, name) for name in ("cpu", "memory")}
    return CgroupLimits(
        cpu_shares=shares,
        cpu_quota_us=quota if whole["cpu"] else None,
        memory_bytes=ceil(limits.get("memory", 0)) if whole["memory"] else None,
        pids=rules.pod_pids if rules.pod_pids > 0 else None,
        hugepages={size: pages.get(size, 0) for size in rules.hugepage_sizes},
        memory_min=memory if memory and qos is QosClass.GUARANTEED else None,
        memory_low=memory if memory and qos is QosClass.BURSTABLE else None,
    )


def qos_cgroup_limits(
    qos: QosClass, burstable_milli_cpu: int, rules: CgroupRules, burstable_memory: int | None = None
) -> CgroupLimits:
    """Of the level of a class: best effort weighs next to nothing, burstable what its pods request together."""
    shares = _MIN_SHARES if qos is QosClass.BEST_EFFORT else cpu_shares(burstable_milli_cpu)
    low = burstable_memory if qos is QosClass.BURSTABLE and rules.protect_memory else None
    return CgroupLimits(cpu_shares=shares, hugepages=dict.fromkeys(rules.hugepage_sizes, UNBOUNDED), memory_low=low)


def files(limits: CgroupLimits, version: CgroupVersion) -> Iterator[CgroupFile]:
    """In the order in which they are written."""
    return _v2(limits) if version is CgroupVersion.V2 else _v1(limits)


def cpu_weight(shares: int) -> int:
    """Version 2's measure of the same: 2 … 262144 becomes 1 … 10000."""
    return 10_000 if shares >= _MAX_SHARES else 1 + (shares - _MIN_SHARES) * 9999 // 262_142


def _v1(limits: CgroupLimits) -> Iterator[CgroupFile]:
    if limits.cpu_shares is not None:
        yield CgroupFile("cpu", "cpu.shares", str(limits.cpu_shares))
    if limits.cpu_quota_us is not None:
        yield CgroupFile("cpu", "cpu.cfs_period_us", str(CPU_PERIOD_US))
        yield CgroupFile("cpu", "cpu.cfs_quota_us", str(limits.cpu_quota_us))
    if limits.memory_bytes is not None:
        yield CgroupFile("memory", "memory.limit_in_bytes", str(limits.memory_bytes))
    if limits.pids is not None:
        yield CgroupFile("pids", "pids.max", str(limits.pids))
    for size, amount in limits.hugepages.items():
        yield CgroupFile("hugetlb", f"hugetlb.{size}.limit_in_bytes", str(amount))
        yield CgroupFile("hugetlb", f"hugetlb.{size}.rsvd.limit_in_bytes", str(amount), optional=True)


def _v2(limits: CgroupLimits) -> Iterator[CgroupFile]:
    if limits.cpu_shares is not None:
        yield CgroupFile("cpu", "cpu.weight", str(cpu_weight(limits.cpu_shares)))
    if limits.cpu_quota_us is not None:
        quota = "max" if limits.cpu_quota_us < 0 else str(limits.cpu_quota_us)
        yield CgroupFile("cpu", "cpu.max", f"{quota} {CPU_PERIOD_US}")
    if limits.memory_bytes is not None:
        yield CgroupFile("memory", "memory.max", str(limits.memory_bytes))
    if limits.memory_min is not None:
        yield CgroupFile("memory", "memory.min", str(limits.memory_min))
    if limits.memory_low is not None:
        yield CgroupFile("memory", "memory.low", str(limits.memory_low))
    if limits.pids is not None:
        yield CgroupFile("pids", "pids.max", str(limits.pids))
    for size, amount in limits.hugepages.items():
        yield CgroupFile("hugetlb", f"hugetlb.{size}.max", str(amount))
        yield CgroupFile("hugetlb", f"hugetlb.{size}.rsvd.max", str(amount), optional=True)
