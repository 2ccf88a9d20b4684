import math
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import Retryable
from agent.pods import cgroup_slices
from agent.pods.cgroup_limits import CgroupLimits, CgroupRules
from agent.pods.cgroup_tree import CgroupTree
from agent.pods.cgroups import CgroupDriver, CgroupVersion
from tests.unit.pods.test_cgroup_limits import BURSTABLE, both, pod

MIB = 1 << 20


def v1(mount: Path) -> Path:
    for name in ("cpu", "memory", "pids", "freezer"):
        (mount / name).mkdir()
    return mount


def v2(mount: Path) -> Path:
    (mount / "cgroup.controllers").write_text("cpu memory pids\n")
    (mount / "cgroup.subtree_control").write_text("cpu memory pids\n")
    return mount


def test_the_tree_has_the_nodes_limits_and_the_classes_weights(tmp_path: Path) -> None:
    node = CgroupLimits(cpu_shares=2048, memory_bytes=512 * MIB, pids=1000)
    CgroupTree(CgroupDriver.CGROUPFS, node=node, mount=v1(tmp_path)).prepare(500)
    assert (tmp_path / "cpu/kubepods/cpu.shares").read_text() == "2048"
    assert (tmp_path / "memory/kubepods/memory.limit_in_bytes").read_text() == str(512 * MIB)
    assert (tmp_path / "pids/kubepods/pids.max").read_text() == "1000"
    assert (tmp_path / "cpu/kubepods/burstable/cpu.shares").read_text() == "512"
    assert (tmp_path / "cpu/kubepods/besteffort/cpu.shares").read_text() == "2"
    assert not (tmp_path / "memory/kubepods/burstable/memory.limit_in_bytes").exists()
    assert not (tmp_path / "freezer/kubepods").exists()


def test_a_pods_cgroup_is_limited_and_its_class_weighs_more(tmp_path: Path) -> None:
    tree = CgroupTree(CgroupDriver.CGROUPFS, rules=CgroupRules(pod_pids=50), mount=v1(tmp_path))
    tree.prepare(0)
    tree.make_pod(pod(BURSTABLE), 100)
    assert (tmp_path / "cpu/kubepods/burstable/cpu.shares").read_text() == "102"
    assert (tmp_path / "cpu/kubepods/burstable/podu/cpu.cfs_quota_us").read_text() == "20000"
    assert (tmp_path / "memory/kubepods/burstable/podu/memory.limit_in_bytes").read_text() == str(64 * MIB)
    assert (tmp_path / "pids/kubepods/burstable/podu/pids.max").read_text() == "50"


@pytest.mark.parametrize(
    ("made", "top", "used", "limit", "unlimited"),
    [
        (v1, "memory/", "memory.usage_in_bytes", "memory.limit_in_bytes", str((1 << 63) - 4096)),
        (v2, "", "memory.current", "memory.max", "max"),
    ],
)
def test_what_a_pod_has_of_memory_and_may_have(
    tmp_path: Path, made: Callable[[Path], Path], top: str, used: str, limit: str, unlimited: str
) -> None:
    tree = CgroupTree(CgroupDriver.CGROUPFS, mount=made(tmp_path))
    assert tree.memory(pod(BURSTABLE)) == (0, math.inf)
    folder = tmp_path / f"{top}kubepods/burstable/podu"
    folder.mkdir(parents=True)
    (folder / used).write_text("4096\n")
    (folder / limit).write_text(f"{unlimited}\n")
    in_use, most = tree.memory(pod(BURSTABLE))
    assert in_use == 4096
    assert most >= (1 << 63) - 4096
    (folder / limit).write_text("8192\n")
    assert tree.memory(pod(BURSTABLE)) == (4096, 8192)


def test_one_that_goes_takes_its_weight_along(tmp_path: Path) -> None:
    tree = CgroupTree(CgroupDriver.CGROUPFS, mount=v1(tmp_path))
    tree.make_pod(pod(BURSTABLE), 100)
    for file in (*tmp_path.glob("*/kubepods/burstable/podu/*"),):
        file.unlink()  # a kernel's rmdir takes them
    tree.remove_pod(pod(BURSTABLE), 0)
    assert (tmp_path / "cpu/kubepods/burstable/cpu.shares").read_text() == "2"
    assert not (tmp_path / "cpu/kubepods/burstable/podu").exists()


def test_a_pods_limits_change_in_place(tmp_path: Path) -> None:
    tree = CgroupTree(CgroupDriver.CGROUPFS, mount=v1(tmp_path))
    tree.make_pod(pod(both(cpu="1", memory="8Mi")), 0)
    tree.set_pod(pod(both(cpu="2", memory="16Mi")))
    assert (tmp_path / "cpu/kubepods/podu/cpu.cfs_quota_us").read_text() == "200000"
    assert (tmp_path / "memory/kubepods/podu/memory.limit_in_bytes").read_text() == str(16 * MIB)


def test_version_2_hands_controllers_down(tmp_path: Path) -> None:
    (tmp_path / "kubepods").mkdir()
    (tmp_path / "kubepods/cgroup.controllers").write_text("cpu memory")
    (tmp_path / "kubepods/cgroup.subtree_control").write_text("cpu")
    CgroupTree(CgroupDriver.CGROUPFS, mount=v2(tmp_path)).make_pod(pod(both(cpu="1", memory="8Mi")), 0)
    assert (tmp_path / "kubepods/cgroup.subtree_control").read_text() == "+memory"
    assert (tmp_path / "kubepods/podu/cpu.max").read_text() == "100000 100000"
    assert (tmp_path / "kubepods/podu/cpu.weight").read_text() == "39"
    assert (tmp_path / "kubepods/podu/memory.max").read_text() == str(8 * MIB)


def test_cgroups_of_others_are_limited_only_where_they_exist(tmp_path: Path) -> None:
    mount = v1(tmp_path)
    (mount / "cpu/system.slice").mkdir()
    others = {"/system.slice": CgroupLimits(cpu_shares=512), "/runtime.slice": CgroupLimits(cpu_shares=2)}
    CgroupTree(CgroupDriver.CGROUPFS, others=others, mount=mount).prepare(0)
    assert (mount / "cpu/system.slice/cpu.shares").read_text() == "512"
    assert not (mount / "cpu/runtime.slice").exists()


def test_a_machine_without_cgroups_has_no_tree(tmp_path: Path) -> None:
    CgroupTree(CgroupDriver.CGROUPFS, mount=tmp_path / "none").make_pod(pod({}), 0)
    assert not (tmp_path / "none").exists()


def test_systemd_hears_of_a_slice_and_what_it_is_limited_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, ...]] = []

    def run(*command: str) -> str:
        called.append(command)
        return ""

    monkeypatch.setattr(cgroup_slices, "_run", run)
    tree = CgroupTree(CgroupDriver.SYSTEMD, mount=v1(tmp_path))
    tree.make_pod(pod(both(cpu="15m", memory="8Mi")), 0)
    names = [command[command.index("ssa(sv)a(sa(sv))") + 1] for command in called]
    assert names == ["kubepods.slice", "kubepods-burstable.slice", "kubepods-besteffort.slice", "kubepods-podu.slice"]
    words = " ".join(called[-1])
    assert "CPUShares t 15 CPUQuotaPerSecUSec t 20000 MemoryLimit t 8388608" in words
    assert (tmp_path / "cpu/kubepods.slice/kubepods-podu.slice/cpu.cfs_quota_us").read_text() == "1500"


def test_a_slice_that_is_there_gets_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, ...]] = []

    def run(*command: str) -> str:
        called.append(command)
        return "Unit x.slice already exists." if "StartTransientUnit" in command else ""

    monkeypatch.setattr(cgroup_slices, "_run", run)
    cgroup_slices.start("x.slice", CgroupLimits(memory_bytes=1, cpu_shares=1024, memory_min=5), CgroupVersion.V2)
    assert called[-1][-11:] == ("true", "3", "CPUWeight", "t", "39", "MemoryMax", "t", "1", "MemoryMin", "t", "5")


def test_a_systemd_that_refuses_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup_slices, "_run", lambda *_: "Access denied")
    with pytest.raises(Retryable, match=r"x\.slice: Access denied"):
        cgroup_slices.start("x.slice", CgroupLimits(), CgroupVersion.V2)


def test_protected_memory_is_protected_on_the_levels_above_the_pods_too(tmp_path: Path) -> None:
    tree = CgroupTree(CgroupDriver.CGROUPFS, rules=CgroupRules(protect_memory=True), mount=v2(tmp_path))
    requested = [(0, 0)]
    tree.protects(lambda: requested[-1])
    for name in ("kubepods", "kubepods/burstable", "kubepods/besteffort"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.controllers").write_text("cpu memory pids")
        (tmp_path / name / "cgroup.subtree_control").write_text("cpu memory pids")
    tree.prepare(0)
    assert (tmp_path / "kubepods/memory.min").read_text() == "0"
    requested.append((8 * MIB, 64 * MIB))
    tree.make_pod(pod(BURSTABLE), 100)
    assert (tmp_path / "kubepods/memory.min").read_text() == str(72 * MIB)
    assert (tmp_path / "kubepods/burstable/memory.low").read_text() == str(64 * MIB)
    assert not (tmp_path / "kubepods/besteffort/memory.low").exists()
