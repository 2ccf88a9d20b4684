"""The same cgroups told to systemd, as transient slices: it owns the tree and takes back what it does not know.

In: a slice's name and its limits. Out: calls of `busctl`. Names of properties are those of systemd.resource-control(5).
"""

from __future__ import annotations

import subprocess

from agent.errors import Retryable
from agent.pods.cgroup_limits import CgroupLimits, cpu_weight
from agent.pods.cgroups import CgroupVersion
from agent.pods.translate.resources import CPU_PERIOD_US

_CALL = ("busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
_TIMEOUT_S = 10
_QUOTA_STEP_US = 10_000
"""systemd counts quota in hundredths of a CPU."""

Properties = tuple[tuple[str, str, str], ...]


def start(name: str, limits: CgroupLimits, version: CgroupVersion) -> None:
    """Make the slice, or give the one that there is these limits. Raises Retryable."""
    fixed = (
        ("Description", "s", f"Kubernetes pods, {name}"),
        ("DefaultDependencies", "b", "false"),
        *((f"{what}Accounting", "b", "true") for what in ("CPU", "Memory", "Tasks")),
    )
    properties = (*fixed, *slice_properties(limits, version))
    told = _run(*_CALL, "StartTransientUnit", "ssa(sv)a(sa(sv))", name, "replace", *_listed(properties), "0")
    if "already exists" in told or "UnitExists" in told or "was already loaded" in told:
        told = ""
        change(name, limits, version)
    if told:
        raise Retryable(f"systemd does not make the slice {name}: {told}")


def change(name: str, limits: CgroupLimits, version: CgroupVersion) -> None:
    """Raises Retryable."""
    properties = slice_properties(limits, version)
    if properties and (told := _run(*_CALL, "SetUnitProperties", "sba(sv)", name, "true", *_listed(properties))):
        raise Retryable(f"systemd does not change the slice {name}: {told}")


def slice_properties(limits: CgroupLimits, version: CgroupVersion) -> Properties:
    """(name, type, value) of each."""
    v2 = version is CgroupVersion.V2
    found: list[tuple[str, str, str]] = []
    if limits.cpu_shares is not None:
        weight = cpu_weight(limits.cpu_shares)
        found.append(("CPUWeight", "t", str(weight)) if v2 else ("CPUShares", "t", str(limits.cpu_shares)))
    if limits.cpu_quota_us is not None:
        a_second = limits.cpu_quota_us * 1_000_000 // CPU_PERIOD_US
        rounded = -(-a_second // _QUOTA_STEP_US) * _QUOTA_STEP_US if limits.cpu_quota_us > 0 else (1 << 64) - 1
        found.append(("CPUQuotaPerSecUSec", "t", str(rounded)))
    if limits.memory_bytes is not None:
        found.append(("MemoryMax" if v2 else "MemoryLimit", "t", str(limits.memory_bytes)))
    if limits.memory_min is not None:
        found.append(("MemoryMin", "t", str(limits.memory_min)))
    if limits.memory_low is not None:
        found.append(("MemoryLow", "t", str(limits.memory_low)))
    if limits.pids is not None:
        found.append(("TasksMax", "t", str(limits.pids)))
    return tuple(found)


def _listed(properties: Properties) -> tuple[str, ...]:
    return (str(len(properties)), *(word for one in properties for word in one))


def _run(*command: str) -> str:
    """What went wrong; empty: nothing."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False, text=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else ""
