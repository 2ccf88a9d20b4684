"""End what is left in a pod's cgroup when its containers have ended.

Processes that share the host's process table do not end with their first process by the kernel's own doing. The
runtime ends them; this is for what it misses. Blocks: run it in a thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from agent.pods.cgroups import CGROUP_FS, CgroupDriver, pod_cgroup_path
from agent.pods.qos import QosClass


def end_leftovers(uid: str, qos: QosClass, driver: CgroupDriver, root: str, *, mount: Path = CGROUP_FS) -> int:
    """SIGKILL to every process in the pod's cgroup; how many there were. Only for pods whose containers have ended."""
    path = pod_cgroup_path(uid, qos, driver, root)
    found: set[int] = set()
    for top in (mount, *mount.glob("*")):
        for procs in (top / path).rglob("cgroup.procs"):
            with contextlib.suppress(OSError):  # the cgroup goes with its last process
                found.update(int(pid) for pid in procs.read_text().split())
    for pid in found - {os.getpid()}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(found)
