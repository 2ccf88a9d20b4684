"""What translation must know of this machine and its runtime, read once before the first pod is made.

In: the settings, the Node's facts, /sys, and the runtime's features. Out: the frozen TranslateContext. A feature that
the machine lacks is told as absent here, so that the pure rules decide what a pod that asks for it gets.
"""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Iterable
from pathlib import Path

from agent.cri.runtime import RuntimeClient
from agent.model import quantity
from agent.node.facts import hugepages
from agent.pods.cgroups import CGROUP_FS, CgroupVersion, cgroup_version
from agent.pods.sandbox_profile import write_profile
from agent.pods.sysctls import allowed_sysctls
from agent.pods.translate.context import MemoryRules, TranslateContext
from agent.pods.translate.dns import read_resolv_conf
from agent.pods.translate.resources import hugetlb_size
from agent.providers.contract import ProviderContext

SECCOMP_FOLDER = "seccomp"
"""Below the root folder: where `Localhost` profiles lie."""
OWN_CGROUP = Path("/proc/self/cgroup")
_DEFAULT_HANDLER = ""


async def translate_context(context: ProviderContext, runtime: RuntimeClient, pod_logs: Path) -> TranslateContext:
    """Raises Retryable while the runtime does not answer."""
    status = await runtime.status()
    handlers = {handler.name: handler.features for handler in status.runtime_handlers}
    recursive = _DEFAULT_HANDLER in handlers and handlers[_DEFAULT_HANDLER].recursive_read_only_mounts
    return await asyncio.to_thread(_read, context, pod_logs, recursive)


def _read(context: ProviderContext, pod_logs: Path, recursive_read_only: bool) -> TranslateContext:
    settings = context.settings
    return TranslateContext(
        node_name=settings.node_name,
        memory_capacity_bytes=context.facts.memory_bytes,
        node_ips=tuple(context.node_ips),
        cluster_dns=settings.cluster_dns,
        cluster_domain=settings.cluster_domain,
        resolv_conf=read_resolv_conf(settings.resolv_conf),
        standalone=settings.kubeconfig is None,
        pod_logs_dir=str(pod_logs),
        seccomp_root=str(settings.root_dir.absolute() / SECCOMP_FOLDER),
        sandbox_seccomp=write_profile(settings.root_dir),
        seccomp_default=settings.seccomp_default,
        allowed_sysctls=allowed_sysctls(platform.release(), settings.allowed_unsafe_sysctls),
        hugepage_sizes=tuple(hugetlb_size(size) for size in hugepages()),
        masked_paths=tuple(thermal_throttles()),
        recursive_read_only=recursive_read_only,
        cpu_quota=settings.cpu_cfs_quota,
        oom_kill_whole_container=cgroup_version() is CgroupVersion.V2,
        memory=memory_rules(context),
        selinux=selinux_enabled(),
    )


def memory_rules(context: ProviderContext, mount: Path = CGROUP_FS, own: Path = OWN_CGROUP) -> MemoryRules:
    if cgroup_version(mount) is not CgroupVersion.V2:
        return MemoryRules()
    settings, facts = context.settings, context.facts
    return MemoryRules(
        qos=settings.memory_qos,
        protect=settings.memory_reservation_policy == "TieredReservation",
        throttling_factor=settings.memory_throttling_factor,
        swap=counts_swap(mount, own),
        limited_swap=settings.memory_swap_behavior == "LimitedSwap",
        capacity_bytes=facts.memory_bytes,
        swap_bytes=facts.swap_bytes,
        allocatable_bytes=int(quantity.parse(facts.allocatable.get("memory", 0))),
        page_bytes=os.sysconf("SC_PAGE_SIZE"),
    )


def counts_swap(mount: Path, own: Path) -> bool:
    """Whether the kernel counts swap: the top of the hierarchy has no such file, the agent's own cgroup has."""
    try:
        inside = own.read_text().partition("0::/")[2].split("\n")[0]
    except OSError:
        return False
    return (mount / inside / "memory.swap.max").exists()


def thermal_throttles(top: Path = Path("/")) -> Iterable[str]:
    """CPUs' counters of heat: they tell a container what its neighbours do."""
    found = (top / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")
    return sorted(f"/{folder.relative_to(top)}" for folder in found)


def selinux_enabled(top: Path = Path("/")) -> bool:
    return (top / "sys/fs/selinux/enforce").exists()
