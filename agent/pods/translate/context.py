"""What translation knows of the node: one frozen value, made by whoever reads the machine and the settings.

In: nothing of its own, no I/O. Out: the value that the modules of this package take, and the notice they give back
where the pod's owner must hear of a choice that was made (an event on the pod).
"""

from __future__ import annotations

import msgspec

USER_NAMESPACE_IDS = 65536
"""IDs in the user namespace of each pod that has one."""


class ResolvConf(msgspec.Struct, frozen=True):
    """The node's resolv.conf, as `dns.parse_resolv_conf` reads it."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class MemoryRules(msgspec.Struct, frozen=True):
    """What the version 2 cgroup of a container is told of memory; on version 1 nothing."""

    qos: bool = False
    """Throttle before the limit, and say what is protected."""
    protect: bool = False
    """Requests are kept from reclaim."""
    throttling_factor: float = 0.9
    swap: bool = False
    """The kernel counts swap: each container is told how much it may have."""
    limited_swap: bool = False
    """Burstable pods may swap; otherwise none may."""
    capacity_bytes: int = 0
    swap_bytes: int = 0
    allocatable_bytes: int = 0
    """Stands for the limit of who has none."""
    page_bytes: int = 4096


class TranslateContext(msgspec.Struct, frozen=True):
    node_name: str
    memory_capacity_bytes: int
    """The node's capacity: a burstable container's OOM score is its request's share of it."""
    node_ips: tuple[str, ...] = ()
    """Primary first."""
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    resolv_conf: ResolvConf | None = None
    """None: the node has no resolv.conf, and resolves at its own loopback."""
    standalone: bool = False
    """There is no cluster, so nobody misses its DNS."""
    pod_logs_dir: str = "/var/log/pods"
    seccomp_root: str = "/var/lib/kubelet/seccomp"
    """Folder of `Localhost` seccomp profiles."""
    sandbox_seccomp: str = ""
    """The file of the profile of pause processes; empty: they have the runtime's."""
    seccomp_default: bool = False
    """Who asks for no seccomp profile gets the runtime's instead of none."""
    allowed_sysctls: tuple[str, ...] = ()
    """Names and prefixes with `*` of kernel parameters that pods may set here (`sysctls.allowed_sysctls`)."""
    hugepage_sizes: tuple[str, ...] = ()
    """Sizes that the kernel has, written as the hugetlb cgroup does: "2MB", "1GB"."""
    masked_paths: tuple[str, ...] = ()
    """Paths to hide beside the usual ones (a CPU's thermal_throttle, where the machine has them)."""
    recursive_read_only: bool = False
    """The runtime handler can mount read-only recursively."""
    cpu_quota: bool = True
    """Cpu limits are enforced."""
    oom_kill_whole_container: bool = False
    """Set memory.oom.group, as a kubelet does on cgroup v2: one process over the limit ends the whole container."""
    memory: MemoryRules = MemoryRules()
    first_user_id: int | None = None
    """The pod has a user namespace, whose root is this ID of the host; None: it has the host's users."""
    selinux: bool = False
    """SELinux is on: ask the runtime to relabel what the agent made for the pod."""


class Notice(msgspec.Struct, frozen=True):
    """A warning that belongs on the pod as an event."""

    reason: str
    message: str
