"""Which kernel parameters a pod may set on this node.

In: the pod, and patterns that the node's owner allows beyond the safe ones. Out: why it may not, or nothing. A safe one
changes only the pod's own namespace and cannot hurt its neighbours; all others need the owner's word.
Source: the Kubernetes page "Using sysctls in a Kubernetes Cluster".
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from agent.model.pod import Pod

FORBIDDEN_REASON = "SysctlForbidden"

_SAFE = (
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
)


def forbidden_sysctl(pod: Pod, allowed_unsafe: Iterable[str] = ()) -> str | None:
    """One line that names the first parameter the pod may not set, None where it may set all it asks for.

    `allowed_unsafe` holds names or prefixes that end in `*`.
    """
    patterns = (*_SAFE, *(dotted(pattern) for pattern in allowed_unsafe))
    for sysctl in pod.spec.securityContext.sysctls if pod.spec.securityContext else ():
        name = dotted(sysctl.name)
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            return f'forbidden sysctl: "{name}" not allowlisted'
        if pod.spec.hostNetwork and name.startswith("net."):
            return f'forbidden sysctl: "{name}" not allowed with host Net enabled'
        if pod.spec.hostIPC and not name.startswith("net."):
            return f'forbidden sysctl: "{name}" not allowed with host IPC enabled'
    return None


def dotted(name: str) -> str:
    """`net/ipv4/conf/eth0.1/forwarding` with dots and slashes swapped: the first separator says which form it is."""
    first = next((char for char in name if char in "./"), ".")
    return name if first == "." else name.translate(str.maketrans("./", "/."))
