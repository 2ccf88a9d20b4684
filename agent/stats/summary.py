"""A reading as a kubelet's Summary: what /stats/summary serves. Pure but for the rates, which remember.

Source: k8s.io/kubelet, stats/v1alpha1.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from agent.stats.cgroups import Usage
from agent.stats.disk import FileSystem
from agent.stats.figures import ContainerFigures, MachineFigures, PodFigures, Reading, Taken, VolumeFigures
from agent.stats.network import Interface, main
from agent.stats.rates import Rates

NODE = "/"


def summary(node_name: str, reading: Reading, rates: Rates) -> dict[str, Any]:
    names = [NODE, *reading.system]
    for pod in reading.pods:
        names += [pod.cgroup, *(one.cgroup for one in pod.containers)]
    rates.keep_only(names)
    pods = [_pod(pod, reading, rates) for pod in reading.pods]
    return {"node": _node(node_name, reading, rates), "pods": pods}


def _node(name: str, reading: Reading, rates: Rates) -> dict[str, Any]:
    machine, at = reading.machine, _time(reading.at_ns)
    found: dict[str, Any] = {
        "nodeName": name,
        "systemContainers": [
            {
                "name": system,
                "startTime": _time(machine.booted_at_ns),
                "cpu": _cpu(usage, system, rates),
                "memory": _memory(usage, None),
            }
            for system, usage in reading.system.items()
        ],
        "startTime": _time(machine.booted_at_ns),
        "rlimit": {"time": at, "maxpid": machine.process_limit, "curproc": machine.processes},
    }
    if (usage := reading.node) is not None:
        found["cpu"] = _cpu(usage, NODE, rates)
        found["memory"] = _memory(usage, machine.memory_bytes)
    found["swap"] = {
        "time": at,
        "swapAvailableBytes": machine.swap_bytes - machine.swap_used_bytes,
        "swapUsageBytes": machine.swap_used_bytes,
    }
    if machine.network:
        found["network"] = _network(machine.network, reading.at_ns)
    if machine.disk is not None:
        found["fs"] = _disk(machine.disk, reading.at_ns)
    if (images := machine.images_disk) is not None:
        own = _disk(images, reading.at_ns)
        found["runtime"] = {"imageFs": {**own, "usedBytes": machine.images_used_bytes}, "containerFs": own}
    return found


def _pod(pod: PodFigures, reading: Reading, rates: Rates) -> dict[str, Any]:
    machine, at_ns = reading.machine, reading.at_ns
    found: dict[str, Any] = {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": _time(pod.started_at_ns),
        "containers": [_container(one, machine, at_ns, rates) for one in pod.containers],
    }
    if pod.usage is not None:
        found["cpu"] = _cpu(pod.usage, pod.cgroup, rates)
        found["memory"] = _memory(pod.usage, pod.usage.memory_limit)
        found["swap"] = _swap(pod.usage)
    if pod.network:
        found["network"] = _network(pod.network, at_ns)
    if pod.volumes:
        found["volume"] = [_volume(volume, pod.namespace, at_ns) for volume in pod.volumes]
    if pod.details is not None:
        found["process_stats"] = {"process_count": pod.details.processes}
    if machine.disk is not None:
        found["ephemeral-storage"] = _ephemeral(pod, machine.disk, at_ns)
    return found


def _container(one: ContainerFigures, machine: MachineFigures, at_ns: int, rates: Rates) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": one.name,
        "startTime": _time(one.started_at_ns),
        "cpu": _cpu(one.usage, one.cgroup, rates),
        "memory": _memory(one.usage, one.usage.memory_limit),
        "swap": _swap(one.usage),
    }
    if one.writable is not None and machine.images_disk is not None:
        found["rootfs"] = _part(machine.images_disk, one.writable, at_ns)
    if one.log is not None and machine.logs_disk is not None:
        found["logs"] = _part(machine.logs_disk, one.log, at_ns)
    return found


def _ephemeral(pod: PodFigures, disk: FileSystem, at_ns: int) -> dict[str, Any]:
    parts = [part for one in pod.containers for part in (one.writable, one.log) if part is not None]
    parts += [Taken(volume.disk.used_bytes, volume.disk.inodes_used) for volume in pod.volumes if volume.on_node]
    return _part(disk, Taken(sum(p.used_bytes for p in parts), sum(p.inodes for p in parts)), at_ns)


def _volume(volume: VolumeFigures, namespace: str, at_ns: int) -> dict[str, Any]:
    reference = {"pvcRef": {"name": volume.claim, "namespace": namespace}} if volume.claim else {}
    return {"name": volume.name, **reference, **_disk(volume.disk, at_ns)}


def _cpu(usage: Usage, name: str, rates: Rates) -> dict[str, Any]:
    rate = rates.rate(name, usage.at_ns, usage.cpu_ns)
    found: dict[str, Any] = {"time": _time(usage.at_ns), "usageCoreNanoSeconds": usage.cpu_ns}
    return found if rate is None else {**found, "usageNanoCores": rate}


def _memory(usage: Usage, limit: int | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "time": _time(usage.at_ns),
        "usageBytes": usage.memory_bytes,
        "workingSetBytes": usage.working_set_bytes,
        "rssBytes": usage.rss_bytes,
        "pageFaults": usage.page_faults,
        "majorPageFaults": usage.major_page_faults,
    }
    return found if limit is None else {**found, "availableBytes": max(0, limit - usage.working_set_bytes)}


def _swap(usage: Usage) -> dict[str, Any]:
    found: dict[str, Any] = {"time": _time(usage.at_ns), "swapUsageBytes": usage.swap_bytes}
    if usage.swap_limit is not None:
        found["swapAvailableBytes"] = max(0, usage.swap_limit - usage.swap_bytes)
    return found


def _network(found: Sequence[Interface], at_ns: int) -> dict[str, Any]:
    shown = main(tuple(found))
    first = {} if shown is None else _interface(shown)
    return {"time": _time(at_ns), **first, "interfaces": [_interface(one) for one in found]}


def _interface(one: Interface) -> dict[str, Any]:
    return {
        "name": one.name,
        "rxBytes": one.rx_bytes,
        "rxErrors": one.rx_errors,
        "txBytes": one.tx_bytes,
        "txErrors": one.tx_errors,
    }


def _disk(disk: FileSystem, at_ns: int) -> dict[str, Any]:
    return {
        "time": _time(at_ns),
        "availableBytes": disk.available_bytes,
        "capacityBytes": disk.capacity_bytes,
        "usedBytes": disk.used_bytes,
        "inodesFree": disk.inodes_free,
        "inodes": disk.inodes,
        "inodesUsed": disk.inodes_used,
    }


def _part(disk: FileSystem, part: Taken, at_ns: int) -> dict[str, Any]:
    return {**_disk(disk, at_ns), "usedBytes": part.used_bytes, "inodesUsed": part.inodes}


def _time(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
