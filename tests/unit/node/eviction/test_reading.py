"""What is left of a made-up machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from msgspec.structs import replace

from agent.node.eviction.reading import SignalReader, shares_disk
from agent.node.eviction.signals import Observation, Signal
from agent.stats.cgroups import Cgroups
from tests.unit.node.machine import FACTS
from tests.unit.stats.trees import version_1, version_2, write

PODS = PurePosixPath("kubepods")
MACHINE = replace(FACTS, memory_bytes=10_000_000, threads_max=4000)


def reader(top: Path) -> SignalReader:
    return SignalReader(MACHINE, top / "root", Cgroups(top / "cgroup", top / "proc"), top / "proc")


@pytest.mark.parametrize("tree", [version_1, version_2])
def test_memory_is_what_the_working_set_leaves(tmp_path: Path, tree: Callable[[Path, str], None]) -> None:
    for path in ("", "kubepods"):
        tree(tmp_path / "cgroup", path)
    write(tmp_path / "proc", {"loadavg": "0.20 0.18 0.12 1/1500 11206\n"})
    found = reader(tmp_path).read(None, PODS)
    assert found[Signal.MEMORY] == Observation(10_000_000 - 600_000, 10_000_000)
    assert found[Signal.ALLOCATABLE_MEMORY] == Observation(4_000_000 - 600_000, 4_000_000)
    assert found[Signal.PIDS] == Observation(2500, 4000)


def test_the_top_of_version_2_has_only_the_machines_own_word(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "cgroup/cgroup.controllers": "memory\n",
            "cgroup/memory.stat": "anon 1\ninactive_file 1024\n",
            "proc/meminfo": "MemTotal: 9000 kB\nMemFree: 4000 kB\n",
        },
    )
    used = (5000 - 1) * 1024
    assert reader(tmp_path).read(None, None)[Signal.MEMORY] == Observation(10_000_000 - used, 10_000_000)


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    found = reader(tmp_path).read(tmp_path / "nowhere", PODS)
    assert {Signal.NODE_FS, Signal.IMAGE_FS} <= found.keys()
    assert not {Signal.MEMORY, Signal.ALLOCATABLE_MEMORY, Signal.PIDS} & found.keys()


def test_a_pods_cgroup_without_a_limit_is_no_signal(tmp_path: Path) -> None:
    version_2(tmp_path / "cgroup", "kubepods")
    write(tmp_path / "cgroup", {"kubepods/memory.max": "max\n"})
    assert Signal.ALLOCATABLE_MEMORY not in reader(tmp_path).read(None, PODS)


def test_folders_that_do_not_exist_yet_count_as_where_they_would_be(tmp_path: Path) -> None:
    assert shares_disk(tmp_path, tmp_path / "a/b")
    assert not shares_disk(tmp_path, Path("/proc"))


def test_the_disk_of_images_is_not_guessed_while_the_runtime_does_not_say_it(tmp_path: Path) -> None:
    found = reader(tmp_path).read(None, PODS)
    assert Signal.NODE_FS in found
    assert not {Signal.IMAGE_FS, Signal.IMAGE_FS_INODES} & found.keys()
