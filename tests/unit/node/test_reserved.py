from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.errors import ConfigError
from agent.node import status
from agent.node.reserved import check_reserved_cpus, others_limits, pods_limits
from agent.pods.cgroup_limits import CgroupLimits
from tests.unit.node.machine import FACTS, SETTINGS

KEPT = replace(
    SETTINGS,
    system_reserved={"cpu": "500m", "memory": "1Gi", "pid": "100"},
    kube_reserved={"cpu": "250m", "memory": "512Mi"},
)
GIB = 1 << 30


def test_what_is_reserved_is_not_allocatable() -> None:
    before, after = status.allocatable(FACTS, SETTINGS), status.allocatable(FACTS, KEPT)
    assert (before["cpu"], after["cpu"]) == ("4", "3250m")
    assert int(before["memory"][:-2]) - int(after["memory"][:-2]) == 3 * GIB // 2 // 1024


def test_all_pods_together_are_limited_to_the_rest() -> None:
    facts = replace(FACTS, pid_max=5000, threads_max=4000)
    made = pods_limits(facts, KEPT)
    assert (made.cpu_shares, made.pids) == (3328, 3900)
    assert made.memory_bytes == FACTS.memory_bytes - 3 * GIB // 2
    assert made.hugepages == {"2MB": GIB, "1GB": 0}


def test_where_that_is_not_enforced_they_may_have_all_of_it() -> None:
    made = pods_limits(FACTS, replace(KEPT, enforce_node_allocatable=()))
    assert (made.cpu_shares, made.memory_bytes) == (4096, FACTS.memory_bytes)


def test_system_and_runtime_keep_to_what_was_reserved_for_them() -> None:
    kept = replace(
        KEPT,
        enforce_node_allocatable=("system-reserved", "kube-reserved-compressible"),
        system_reserved_cgroup="/system.slice",
        kube_reserved_cgroup="/runtime.slice",
    )
    assert others_limits(kept) == {
        "/system.slice": CgroupLimits(cpu_shares=512, memory_bytes=GIB, pids=100),
        "/runtime.slice": CgroupLimits(cpu_shares=256),
    }
    assert others_limits(KEPT) == {}


def test_cpus_reserved_by_number_stand_for_any_amount(tmp_path: Path) -> None:
    kept = replace(KEPT, reserved_cpus="0,2-3")
    assert status.allocatable(FACTS, kept)["cpu"] == "1"
    assert pods_limits(FACTS, kept).cpu_shares == 1024
    online = tmp_path / "online"
    online.write_text("0-3\n")
    check_reserved_cpus(kept, online)
    with pytest.raises(ConfigError, match="the machine has no CPU 4"):
        check_reserved_cpus(replace(kept, reserved_cpus="1,4-5"), online)
    check_reserved_cpus(kept, tmp_path / "none")
