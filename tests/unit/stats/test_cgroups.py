"""Both versions of the kernel's interface say the same of the same container."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from agent.pods.cgroups import CgroupVersion
from agent.stats.cgroups import Cgroups, Io
from tests.unit.stats.trees import version_1, version_2, write

BOTH = pytest.mark.parametrize("tree", [version_1, version_2])
PATH = PurePosixPath("kubepods/podu/c1")
Tree = Callable[[Path, str], None]


@BOTH
def test_usage_and_details_of_a_container(tmp_path: Path, tree: Tree) -> None:
    tree(tmp_path, str(PATH))
    cgroups = Cgroups(tmp_path)
    usage = cgroups.usage(PATH)
    assert usage is not None
    assert usage.cpu_ns == 5_000_000_000
    assert (usage.memory_bytes, usage.working_set_bytes, usage.memory_limit) == (1_000_000, 600_000, 4_000_000)
    assert (usage.rss_bytes, usage.cache_bytes, usage.mapped_bytes, usage.swap_bytes) == (300_000, 600_000, 4096, 8192)
    assert (usage.page_faults, usage.major_page_faults, usage.swap_limit) == (90, 9, None)
    details = cgroups.details(PATH)
    assert (details.cpu_user_ns, details.cpu_system_ns) == (3_000_000_000, 2_000_000_000)
    assert (details.periods, details.throttled_periods, details.throttled_ns) == (10, 4, 1_500_000_000)
    assert (details.cpu_quota_us, details.cpu_period_us) == (50_000, 100_000)
    assert details.cpu_shares == pytest.approx(512, abs=15)
    assert (details.memory_peak, details.memory_failures) == (2_000_000, 7)
    assert (details.processes, details.process_limit) == (3, 100)
    assert details.io == {"8:0": Io(4096, 8192, 1, 2)}
    assert cgroups.processes(PATH) == (42,)


@BOTH
def test_a_cgroup_that_is_gone_has_no_usage(tmp_path: Path, tree: Tree) -> None:
    tree(tmp_path, "other")
    assert Cgroups(tmp_path).usage(PATH) is None
    assert Cgroups(tmp_path).processes(PATH) == ()


def test_no_limit_is_none_in_either_version(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    version_1(one, "c")
    write(one, {"memory/c/memory.limit_in_bytes": "9223372036854771712\n", "cpu/c/cpu.cfs_quota_us": "-1\n"})
    version_2(two, "c")
    write(two, {"c/memory.max": "max\n", "c/cpu.max": "max 100000\n", "c/pids.max": "max\n"})
    for mount in (one, two):
        cgroups = Cgroups(mount)
        usage = cgroups.usage(PurePosixPath("c"))
        assert usage is not None
        assert usage.memory_limit is None
        assert cgroups.details(PurePosixPath("c")).cpu_quota_us is None


def test_the_top_of_version_2_takes_memory_from_the_machine(tmp_path: Path) -> None:
    version_2(tmp_path / "fs", "")
    (tmp_path / "fs/memory.current").unlink()
    write(tmp_path / "proc", {"meminfo": "MemTotal:        8000 kB\nMemFree:         3000 kB\nBuffers: 1 kB\n"})
    cgroups = Cgroups(tmp_path / "fs", tmp_path / "proc")
    assert cgroups.version is CgroupVersion.V2
    usage = cgroups.usage(PurePosixPath())
    assert usage is not None
    assert (usage.memory_bytes, usage.working_set_bytes) == (5000 * 1024, 5000 * 1024 - 400_000)


def test_a_kernel_without_recursive_counters_of_disks_counts_the_cgroups_own(tmp_path: Path) -> None:
    version_1(tmp_path, "c")
    for name in ("io_service_bytes", "io_serviced"):
        file = tmp_path / "blkio/c" / f"blkio.throttle.{name}_recursive"
        file.rename(file.with_name(f"blkio.throttle.{name}"))
    assert Cgroups(tmp_path).details(PurePosixPath("c")).io == {"8:0": Io(4096, 8192, 1, 2)}
