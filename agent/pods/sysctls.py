"""Which kernel parameters a pod may set on this node.

In: the pod, and patterns that the node's owner allows beyond the safe ones. Out: why it may not, or nothing. A safe one
changes only the pod's own namespace and cannot hurt its neighbours; all others need the owner's word.
Source: the Kubernetes page "Using sysctls in a Kubernetes Cluster".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from agent.model.pod import Pod

FORBIDDEN_REASON = "SysctlForbidden"

_SAFE: dict[str, tuple[int, int]] = {
    "kernel.shm_rmid_forced": (0, 0),
    "net.ipv4.ip_local_port_range": (0, 0),
    "net.ipv4.ip_local_reserved_ports": (3, 16),
    "net.ipv4.ip_unprivileged_port_start": (0, 0),
    "net.ipv4.ping_group_range": (0, 0),
    "net.ipv4.tcp_fin_timeout": (4, 6),
    "net.ipv4.tcp_keepalive_intvl": (4, 5),
    "net.ipv4.tcp_keepalive_probes": (4, 5),
    "net.ipv4.tcp_keepalive_time": (4, 5),
    "net.ipv4.tcp_rmem": (4, 15),
    "net.ipv4.tcp_syncookies": (0, 0),
    "net.ipv4.tcp_wmem": (4, 15),
}
"""With the kernel from which on each belongs to the pod alone."""


def allowed_sysctls(kernel_release: str, unsafe: Iterable[str] = ()) -> tuple[str, ...]:
    """What pods may set on a kernel ("6.1.0-18-amd64"): the safe ones, and `unsafe` of the owner, dotted.

    A name may end in `*`.
    """
    found = re.match(r"(\d+)\.(\d+)", kernel_release)
    kernel = (int(found[1]), int(found[2])) if found else (0, 0)
    return (*(name for name, since in _SAFE.items() if kernel >= since), *(dotted(pattern) for pattern in unsafe))


def forbidden_sysctl(pod: Pod, allowed: Iterable[str] = tuple(_SAFE)) -> str | None:
    """One line that names the first parameter the pod may not set, None where it may set all it asks for."""
    patterns = tuple(allowed)
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
