"""What pods leave to the rest of the machine, and what that makes of the limits of their cgroups.

In: the machine's size and the settings. Out: amounts in base units (cores, bytes, pieces), and limits. Pure.
Source: the Kubernetes page "Reserve Compute Resources for System Daemons".
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from agent.config import Settings
from agent.errors import ConfigError
from agent.model import quantity
from agent.node.facts import MachineFacts
from agent.option_periods import cpu_list
from agent.pods.cgroup_limits import CgroupLimits
from agent.pods.translate.resources import cpu_shares, hugetlb_size

PODS = "pods"
ONLINE = Path("/sys/devices/system/cpu/online")


def reserved(settings: Settings, name: str) -> Fraction:
    """For system and agent together; of hugepages nothing can be. CPUs reserved by number stand for any amount."""
    if name == "cpu" and settings.reserved_cpus:
        return Fraction(len(cpu_list(settings.reserved_cpus)))
    kept = (settings.system_reserved, settings.kube_reserved)
    return sum((quantity.parse(amounts.get(name, 0)) for amounts in kept), Fraction(0))


def check_reserved_cpus(settings: Settings, online: Path = ONLINE) -> None:
    """Raises ConfigError where the machine lacks one."""
    try:
        there = cpu_list(online.read_text().strip())
    except (OSError, ValueError):
        return
    if lacking := sorted(cpu_list(settings.reserved_cpus) - there):
        raise ConfigError(f"--reserved-cpus: {settings.reserved_cpus}: the machine has no CPU {lacking[0]}")


def pods_limits(facts: MachineFacts, settings: Settings) -> CgroupLimits:
    """Of all pods together: the machine without what is reserved, if that is enforced, else all of it."""

    def room(name: str, amount: int) -> Fraction:
        kept = reserved(settings, name) if PODS in settings.enforce_node_allocatable else 0
        return max(Fraction(amount) - kept, Fraction(0))

    return CgroupLimits(
        cpu_shares=cpu_shares(int(room("cpu", facts.cpus) * 1000)),
        memory_bytes=int(room("memory", facts.memory_bytes)),
        pids=int(room("pid", facts.most_pids)),
        hugepages={hugetlb_size(size): amount for size, amount in facts.hugepages_bytes.items()},
    )


def others_limits(settings: Settings) -> dict[str, CgroupLimits]:
    """Of the cgroups, by path, that are to keep to what was reserved for them."""
    found = {}
    for name, group, amounts in (
        ("system-reserved", settings.system_reserved_cgroup, settings.system_reserved),
        ("kube-reserved", settings.kube_reserved_cgroup, settings.kube_reserved),
    ):
        if name in settings.enforce_node_allocatable:
            found[group] = _limits(amounts)
        elif f"{name}-compressible" in settings.enforce_node_allocatable:
            found[group] = _limits({key: amount for key, amount in amounts.items() if key == "cpu"})
    return found


def _limits(amounts: Mapping[str, str]) -> CgroupLimits:
    whole = {name: quantity.ceil_units(amount) for name, amount in amounts.items()}
    return CgroupLimits(
        cpu_shares=cpu_shares(quantity.ceil_milli(amounts["cpu"])) if "cpu" in amounts else None,
        memory_bytes=whole.get("memory"),
        pids=whole.get("pid"),
    )
