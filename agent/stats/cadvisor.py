"""A reading as /metrics/cadvisor: the series that dashboards for clusters are made of. Pure.

Names and labels are cAdvisor's as a kubelet gives them: `container` empty for a pod's cgroup and for its sandbox, whose
row carries the pod's network; `image` empty for what is no container; `id` the cgroup's path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from agent.exposition import Exposition, Kind
from agent.stats.cgroups import Details, Io, Usage
from agent.stats.disk import FileSystem
from agent.stats.figures import ContainerFigures, MachineFigures, PodFigures, Reading
from agent.stats.network import Interface


class _Row(msgspec.Struct, frozen=True):
    labels: Mapping[str, str]
    usage: Usage
    details: Details
    started_at_ns: int
    network: tuple[Interface, ...] = ()
    disks: Mapping[str, FileSystem] | None = None


class MachineIdentity(msgspec.Struct, frozen=True):
    machine_id: str
    system_uuid: str
    boot_id: str


def cadvisor_metrics(
    reading: Reading,
    identity: MachineIdentity,
    devices: Mapping[str, str],
    pause_image: str,
    cores: int | None = None,
) -> str:
    """`devices`: names of block devices by their numbers; `cores`: physical ones, where known."""
    rows = list(_rows(reading, pause_image))
    out = Exposition()
    for name, kind, about, read in _USAGE:
        out.family(name, kind, about)
        extra = {"cpu": "total"} if name == "container_cpu_usage_seconds_total" else {}
        for row in rows:
            out.sample(read(row.usage), {**row.labels, **extra}, _ms(row))
    out.family("container_memory_failures_total", Kind.COUNTER, "Page faults by their kind.")
    for row in rows:
        for kind_, count in (("pgfault", row.usage.page_faults), ("pgmajfault", row.usage.major_page_faults)):
            out.sample(count, {**row.labels, "failure_type": kind_, "scope": "hierarchy"}, _ms(row))
    _details(out, rows)
    _limits(out, rows)
    _io(out, rows, devices)
    _network(out, rows)
    _disks(out, rows)
    _machine(out, reading.machine, identity, cores)
    return out.text()


def _rows(reading: Reading, pause_image: str) -> Iterable[_Row]:
    machine = reading.machine
    if reading.node is not None:
        details, disks = reading.node_details or Details(), _file_systems(machine)
        yield _Row(_labels("/"), reading.node, details, machine.booted_at_ns, machine.network, disks)
    for pod in reading.pods:
        if pod.usage is not None:
            yield _Row(_labels(pod.cgroup, pod), pod.usage, pod.details or Details(), pod.started_at_ns)
        if (own := pod.sandbox) is not None:
            yield _Row(
                _labels(own.cgroup, pod, own, pause_image),
                own.usage,
                own.details or Details(),
                own.started_at_ns,
                pod.network,
            )
        for one in pod.containers:
            labels = _labels(one.cgroup, pod, one, one.image)
            yield _Row(labels, one.usage, one.details or Details(), one.started_at_ns)


def _labels(
    cgroup: str, pod: PodFigures | None = None, one: ContainerFigures | None = None, image: str = ""
) -> dict[str, str]:
    return {
        "container": "" if one is None else one.name,
        "id": cgroup,
        "image": image,
        "name": "" if one is None else one.id,
        "namespace": "" if pod is None else pod.namespace,
        "pod": "" if pod is None else pod.name,
    }


def _details(out: Exposition, rows: Iterable[_Row]) -> None:
    rows = list(rows)
    for name, kind, about, read in _DETAILS:
        out.family(name, kind, about)
        limited_only = name.startswith("container_cpu_cfs_")
        for row in rows:
            if not limited_only or row.details.cpu_quota_us is not None:
                out.sample(read(row.details), row.labels, _ms(row))
    out.family("container_last_seen", Kind.GAUGE, "When it was last seen, in Unix seconds.")
    for row in rows:
        out.sample(row.usage.at_ns // 1_000_000_000, row.labels, _ms(row))
    out.family("container_start_time_seconds", Kind.GAUGE, "When it was started, in Unix seconds.")
    for row in rows:
        out.sample(row.started_at_ns // 1_000_000_000, row.labels)


def _limits(out: Exposition, rows: Iterable[_Row]) -> None:
    rows = list(rows)
    out.family("container_spec_cpu_period", Kind.GAUGE, "CPU period in microseconds.")
    for row in rows:
        if row.details.cpu_period_us:
            out.sample(row.details.cpu_period_us, row.labels)
    out.family("container_spec_cpu_quota", Kind.GAUGE, "CPU quota in microseconds.")
    for row in rows:
        if row.details.cpu_quota_us is not None:
            out.sample(row.details.cpu_quota_us, row.labels)
    out.family("container_spec_cpu_shares", Kind.GAUGE, "CPU shares.")
    for row in rows:
        if row.details.cpu_shares:
            out.sample(row.details.cpu_shares, row.labels)
    out.family("container_spec_memory_limit_bytes", Kind.GAUGE, "Memory limit; 0 where there is none.")
    for row in rows:
        out.sample(row.usage.memory_limit or 0, row.labels)
    out.family("container_spec_memory_swap_limit_bytes", Kind.GAUGE, "Swap limit; 0 where there is none.")
    for row in rows:
        out.sample(row.usage.swap_limit or 0, row.labels)
    out.family("container_spec_memory_reservation_limit_bytes", Kind.GAUGE, "Memory reservation; none is set.")
    for row in rows:
        out.sample(0, row.labels)
    out.family("container_threads_max", Kind.GAUGE, "Threads that it may have; 0 where there is no limit.")
    for row in rows:
        out.sample(row.details.process_limit or 0, row.labels, _ms(row))


def _io(out: Exposition, rows: Iterable[_Row], devices: Mapping[str, str]) -> None:
    rows = list(rows)
    for name, about, read in _IO:
        out.family(name, Kind.COUNTER, about)
        for row in rows:
            for number, one in row.details.io.items():
                device = f"/dev/{devices[number]}" if number in devices else number
                out.sample(read(one), {**row.labels, "device": device}, _ms(row))


def _network(out: Exposition, rows: Iterable[_Row]) -> None:
    rows = list(rows)
    for way, first in (("receive", "rx"), ("transmit", "tx")):
        for unit, attribute in _NETWORK:
            out.family(f"container_network_{way}_{unit}_total", Kind.COUNTER, f"Network, {way}: {unit}.")
            for row in rows:
                for one in row.network:
                    value = getattr(one, f"{first}_{attribute}")
                    out.sample(value, {**row.labels, "interface": one.name}, _ms(row))


def _disks(out: Exposition, rows: Iterable[_Row]) -> None:
    rows = list(rows)
    for name, about, read in _DISKS:
        out.family(name, Kind.GAUGE, about)
        for row in rows:
            for device, one in (row.disks or {}).items():
                out.sample(read(one), {**row.labels, "device": device}, _ms(row))


def _file_systems(machine: MachineFigures) -> dict[str, FileSystem]:
    """Those that pods use; one that serves for several is told once."""
    found: dict[str, FileSystem] = {}
    for name, one in (("root", machine.disk), ("images", machine.images_disk), ("logs", machine.logs_disk)):
        if one is not None and all(
            (one.capacity_bytes, one.inodes) != (o.capacity_bytes, o.inodes) for o in found.values()
        ):
            found[name] = one
    return found


def _machine(out: Exposition, machine: MachineFigures, identity: MachineIdentity, cores: int | None) -> None:
    labels = {
        "boot_id": identity.boot_id,
        "machine_id": identity.machine_id,
        "system_uuid": identity.system_uuid,
    }
    for name, about, value in (
        ("machine_cpu_cores", "Logical CPUs.", machine.cpus),
        ("machine_cpu_physical_cores", "Physical CPU cores.", cores),
        ("machine_memory_bytes", "Memory of the machine.", machine.memory_bytes),
        ("machine_swap_bytes", "Swap of the machine.", machine.swap_bytes),
    ):
        out.family(name, Kind.GAUGE, about)
        if value is not None:
            out.sample(value, labels)
    out.family("machine_scrape_error", Kind.GAUGE, "1 where the machine could not be read.")
    out.sample(0)
    out.family("container_scrape_error", Kind.GAUGE, "1 where containers could not be read.")
    out.sample(0)


def _ms(row: _Row) -> int:
    return row.usage.at_ns // 1_000_000


_USAGE: tuple[tuple[str, Kind, str, Callable[[Usage], float]], ...] = (
    ("container_cpu_usage_seconds_total", Kind.COUNTER, "CPU time.", lambda u: u.cpu_ns / 1e9),
    ("container_memory_usage_bytes", Kind.GAUGE, "Memory, all kinds.", lambda u: u.memory_bytes),
    (
        "container_memory_working_set_bytes",
        Kind.GAUGE,
        "Memory without what the kernel would drop first.",
        lambda u: u.working_set_bytes,
    ),
    ("container_memory_rss", Kind.GAUGE, "Anonymous memory.", lambda u: u.rss_bytes),
    ("container_memory_cache", Kind.GAUGE, "Page cache.", lambda u: u.cache_bytes),
    ("container_memory_mapped_file", Kind.GAUGE, "Mapped files.", lambda u: u.mapped_bytes),
    ("container_memory_swap", Kind.GAUGE, "Swap.", lambda u: u.swap_bytes),
)
_DETAILS: tuple[tuple[str, Kind, str, Callable[[Details], float]], ...] = (
    ("container_cpu_user_seconds_total", Kind.COUNTER, "CPU time in user mode.", lambda d: d.cpu_user_ns / 1e9),
    ("container_cpu_system_seconds_total", Kind.COUNTER, "CPU time in the kernel.", lambda d: d.cpu_system_ns / 1e9),
    ("container_cpu_cfs_periods_total", Kind.COUNTER, "Periods of the CPU limit.", lambda d: d.periods),
    (
        "container_cpu_cfs_throttled_periods_total",
        Kind.COUNTER,
        "Periods in which the CPU limit was reached.",
        lambda d: d.throttled_periods,
    ),
    (
        "container_cpu_cfs_throttled_seconds_total",
        Kind.COUNTER,
        "Time held back by the CPU limit.",
        lambda d: d.throttled_ns / 1e9,
    ),
    ("container_memory_max_usage_bytes", Kind.GAUGE, "Most memory so far.", lambda d: d.memory_peak),
    ("container_memory_failcnt", Kind.COUNTER, "How often the memory limit was reached.", lambda d: d.memory_failures),
    ("container_threads", Kind.GAUGE, "Threads, kernel's count of tasks.", lambda d: d.processes),
)
_IO: tuple[tuple[str, str, Callable[[Io], float]], ...] = (
    ("container_fs_reads_bytes_total", "Bytes read from the device.", lambda io: io.read_bytes),
    ("container_fs_reads_total", "Reads from the device.", lambda io: io.reads),
    ("container_fs_writes_bytes_total", "Bytes written to the device.", lambda io: io.written_bytes),
    ("container_fs_writes_total", "Writes to the device.", lambda io: io.writes),
)
_NETWORK = (
    ("bytes", "bytes"),
    ("packets", "packets"),
    ("packets_dropped", "dropped"),
    ("errors", "errors"),
)
_DISKS: tuple[tuple[str, str, Callable[[FileSystem], float]], ...] = (
    ("container_fs_limit_bytes", "Size of the file system.", lambda d: d.capacity_bytes),
    ("container_fs_usage_bytes", "Used of the file system.", lambda d: d.used_bytes),
    ("container_fs_inodes_total", "Inodes of the file system.", lambda d: d.inodes),
    ("container_fs_inodes_free", "Free inodes of the file system.", lambda d: d.inodes_free),
)
