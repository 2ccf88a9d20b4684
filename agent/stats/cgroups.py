"""What one cgroup has used and may use, of either version of the kernel's interface.

In: the cgroup's path below the mount. Out: one value, or None where the cgroup is gone. Times are nanoseconds, sizes
bytes. Blocks for the moment that the kernel's files take.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from os import sysconf
from pathlib import Path, PurePosixPath

import msgspec

from agent.pods.cgroups import CGROUP_FS, CgroupVersion, cgroup_version

_NO_LIMIT = 1 << 60
"""Version 1 says "no limit" with the largest number of pages."""
_TICK_NS = 1_000_000_000 // sysconf("SC_CLK_TCK")
_SHARES_PER_WEIGHT = (2, 262142, 1, 9999)


class Io(msgspec.Struct, frozen=True):
    """Of one device, named major:minor."""

    read_bytes: int = 0
    written_bytes: int = 0
    reads: int = 0
    writes: int = 0


class Usage(msgspec.Struct, frozen=True):
    """The part that every reader wants."""

    at_ns: int
    """Unix time of the reading."""
    cpu_ns: int
    memory_bytes: int
    working_set_bytes: int
    """Without file pages that the kernel would drop first: what an eviction would be decided by."""
    rss_bytes: int
    cache_bytes: int
    mapped_bytes: int
    swap_bytes: int
    page_faults: int
    major_page_faults: int
    memory_limit: int | None
    swap_limit: int | None = None


class Memory(msgspec.Struct, frozen=True):
    """The little that whoever looks every few seconds wants."""

    used_bytes: int
    working_set_bytes: int
    limit_bytes: int | None


class Details(msgspec.Struct, frozen=True):
    """The rest, for who wants everything."""

    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0
    cpu_shares: int = 0
    cpu_period_us: int = 0
    cpu_quota_us: int | None = None
    memory_peak: int = 0
    memory_failures: int = 0
    processes: int = 0
    process_limit: int | None = None
    io: Mapping[str, Io] = msgspec.field(default_factory=dict)


class Cgroups:
    def __init__(self, mount: Path = CGROUP_FS, proc: Path = Path("/proc")) -> None:
        self._mount = mount
        self._proc = proc
        self.version = cgroup_version(mount)

    def usage(self, path: PurePosixPath) -> Usage | None:
        return self._usage_2(path) if self.version is CgroupVersion.V2 else self._usage_1(path)

    def details(self, path: PurePosixPath) -> Details:
        return self._details_2(path) if self.version is CgroupVersion.V2 else self._details_1(path)

    def memory(self, path: PurePosixPath) -> Memory | None:
        """Of the top: what the whole machine uses."""
        v2 = self.version is CgroupVersion.V2
        folder = self._mount / path if v2 else self._mount / "memory" / path
        used = self._used_2(path) if v2 else _number(folder / "memory.usage_in_bytes")
        if used is None:
            return None
        inactive = _pairs(folder / "memory.stat").get("inactive_file" if v2 else "total_inactive_file", 0)
        limit = _limit(folder / ("memory.max" if v2 else "memory.limit_in_bytes"))
        return Memory(used, max(0, used - inactive), limit)

    def processes(self, path: PurePosixPath) -> tuple[int, ...]:
        """The processes in that cgroup itself, not below."""
        controller = "" if self.version is CgroupVersion.V2 else "memory"
        words = _text(self._mount / controller / path / "cgroup.procs").split()
        return tuple(int(word) for word in words if word.isdecimal())

    # ------------------------------------------------------------ version 1

    def _usage_1(self, path: PurePosixPath) -> Usage | None:
        memory = self._mount / "memory" / path
        cpu_ns = _number(self._mount / "cpuacct" / path / "cpuacct.usage")
        used = _number(memory / "memory.usage_in_bytes")
        if cpu_ns is None or used is None:
            return None
        stat = _pairs(memory / "memory.stat")
        swap_limit = _limit(memory / "memory.memsw.limit_in_bytes")
        limit = _limit(memory / "memory.limit_in_bytes")
        return Usage(
            at_ns=time.time_ns(),
            cpu_ns=cpu_ns,
            memory_bytes=used,
            working_set_bytes=max(0, used - stat.get("total_inactive_file", 0)),
            rss_bytes=stat.get("total_rss", 0),
            cache_bytes=stat.get("total_cache", 0),
            mapped_bytes=stat.get("total_mapped_file", 0),
            swap_bytes=stat.get("total_swap", 0),
            page_faults=stat.get("total_pgfault", 0),
            major_page_faults=stat.get("total_pgmajfault", 0),
            memory_limit=limit,
            swap_limit=None if swap_limit is None or limit is None else max(0, swap_limit - limit),
        )

    def _details_1(self, path: PurePosixPath) -> Details:
        cpu, memory = self._mount / "cpu" / path, self._mount / "memory" / path
        pids, blkio = self._mount / "pids" / path, self._mount / "blkio" / path
        split = _pairs(self._mount / "cpuacct" / path / "cpuacct.stat")
        stat = _pairs(cpu / "cpu.stat")
        quota = _number(cpu / "cpu.cfs_quota_us")
        return Details(
            cpu_user_ns=split.get("user", 0) * _TICK_NS,
            cpu_system_ns=split.get("system", 0) * _TICK_NS,
            periods=stat.get("nr_periods", 0),
            throttled_periods=stat.get("nr_throttled", 0),
            throttled_ns=stat.get("throttled_time", 0),
            cpu_shares=_number(cpu / "cpu.shares") or 0,
            cpu_period_us=_number(cpu / "cpu.cfs_period_us") or 0,
            cpu_quota_us=quota if quota is not None and quota > 0 else None,
            memory_peak=_number(memory / "memory.max_usage_in_bytes") or 0,
            memory_failures=_number(memory / "memory.failcnt") or 0,
            processes=_number(pids / "pids.current") or 0,
            process_limit=_limit(pids / "pids.max"),
            io=_io_1(blkio),
        )

    # ------------------------------------------------------------ version 2

    def _usage_2(self, path: PurePosixPath) -> Usage | None:
        folder = self._mount / path
        cpu = _pairs(folder / "cpu.stat")
        used = self._used_2(path)
        if used is None or "usage_usec" not in cpu:
            return None
        stat = _pairs(folder / "memory.stat")
        return Usage(
            at_ns=time.time_ns(),
            cpu_ns=cpu["usage_usec"] * 1000,
            memory_bytes=used,
            working_set_bytes=max(0, used - stat.get("inactive_file", 0)),
            rss_bytes=stat.get("anon", 0),
            cache_bytes=stat.get("file", 0),
            mapped_bytes=stat.get("file_mapped", 0),
            swap_bytes=_number(folder / "memory.swap.current") or 0,
            page_faults=stat.get("pgfault", 0),
            major_page_faults=stat.get("pgmajfault", 0),
            memory_limit=_limit(folder / "memory.max"),
            swap_limit=_limit(folder / "memory.swap.max"),
        )

    def _used_2(self, path: PurePosixPath) -> int | None:
        used = _number(self._mount / path / "memory.current")
        if used is None and path == PurePosixPath():
            # The top has no such file: all that the machine uses.
            machine = _meminfo(self._proc / "meminfo")
            used = machine.get("MemTotal", 0) - machine.get("MemFree", 0)
        return used

    def _details_2(self, path: PurePosixPath) -> Details:
        folder = self._mount / path
        cpu = _pairs(folder / "cpu.stat")
        quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
        return Details(
            cpu_user_ns=cpu.get("user_usec", 0) * 1000,
            cpu_system_ns=cpu.get("system_usec", 0) * 1000,
            periods=cpu.get("nr_periods", 0),
            throttled_periods=cpu.get("nr_throttled", 0),
            throttled_ns=cpu.get("throttled_usec", 0) * 1000,
            cpu_shares=_shares(_number(folder / "cpu.weight") or 0),
            cpu_period_us=int(period) if period.isdecimal() else 0,
            cpu_quota_us=int(quota) if quota.isdecimal() else None,
            memory_peak=_number(folder / "memory.peak") or 0,
            memory_failures=_pairs(folder / "memory.events").get("max", 0),
            processes=_number(folder / "pids.current") or 0,
            process_limit=_limit(folder / "pids.max"),
            io=_io_2(folder / "io.stat"),
        )


def _shares(weight: int) -> int:
    """Back from version 2's weight to the shares that a container's request was translated to."""
    low, span, first, steps = _SHARES_PER_WEIGHT
    return low + (weight - first) * span // steps if weight else 0


def _io_1(folder: Path) -> dict[str, Io]:
    """The recursive files are those of kernels that have them; the plain ones count only the cgroup itself."""
    found: dict[str, list[int]] = {}
    for index, name in ((0, "io_service_bytes"), (2, "io_serviced")):
        text = _text(folder / f"blkio.throttle.{name}_recursive") or _text(folder / f"blkio.throttle.{name}")
        for line in text.splitlines():
            match line.split():
                case [device, "Read" | "Write" as way, count] if count.isdecimal():
                    found.setdefault(device, [0, 0, 0, 0])[index + (way == "Write")] = int(count)
    return {device: Io(*numbers) for device, numbers in found.items()}


def _io_2(file: Path) -> dict[str, Io]:
    found: dict[str, Io] = {}
    for line in _text(file).splitlines():
        device, *parts = line.split()
        values = dict(part.split("=", 1) for part in parts if "=" in part)
        found[device] = Io(*(int(values.get(key, 0)) for key in ("rbytes", "wbytes", "rios", "wios")))
    return found


def _meminfo(file: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in _text(file).splitlines():
        match line.split():
            case [name, kib, "kB"]:
                found[name.removesuffix(":")] = int(kib) * 1024
    return found


def _pairs(file: Path) -> dict[str, int]:
    """`name number` a line."""
    words = (line.split() for line in _text(file).splitlines())
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdecimal()}


def _number(file: Path) -> int | None:
    try:
        return int(_text(file))
    except ValueError:
        return None


def _limit(file: Path) -> int | None:
    """None where there is none ("max"), or no such file."""
    number = _number(file)
    return None if number is None or number >= _NO_LIMIT else number


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""  # the cgroup went, or this kernel has no such file
