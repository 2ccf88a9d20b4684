import os
from pathlib import Path

import pytest

from agent.errors import Retryable
from agent.pods.cgroups import (
    CgroupDriver,
    CgroupVersion,
    cgroup_version,
    is_deserted,
    pod_cgroup_parent,
    pod_cgroup_path,
    pod_cgroups,
    qos_cgroup_path,
    remove_pod_cgroup,
    removed_empty_cgroup,
)
from agent.pods.qos import QosClass

UID = "0c1e-22"


@pytest.mark.parametrize(
    ("qos", "driver", "root", "parent"),
    [
        (QosClass.BURSTABLE, CgroupDriver.CGROUPFS, "/", "/kubepods/burstable/pod0c1e-22"),
        (QosClass.BEST_EFFORT, CgroupDriver.CGROUPFS, "/", "/kubepods/besteffort/pod0c1e-22"),
        (QosClass.GUARANTEED, CgroupDriver.CGROUPFS, "/", "/kubepods/pod0c1e-22"),
        (QosClass.GUARANTEED, CgroupDriver.CGROUPFS, "/edge/one", "/edge/one/kubepods/pod0c1e-22"),
        (QosClass.BURSTABLE, CgroupDriver.SYSTEMD, "/", "kubepods-burstable-pod0c1e_22.slice"),
        (QosClass.GUARANTEED, CgroupDriver.SYSTEMD, "/my-edge", "my_edge-kubepods-pod0c1e_22.slice"),
    ],
)
def test_the_cgroup_parent_is_named_as_the_kubelet_names_it(
    qos: QosClass, driver: CgroupDriver, root: str, parent: str
) -> None:
    assert pod_cgroup_parent(UID, qos, driver, root) == parent


def test_systemd_nests_every_prefix_of_a_slice() -> None:
    path = pod_cgroup_path(UID, QosClass.BEST_EFFORT, CgroupDriver.SYSTEMD)
    assert str(path) == "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod0c1e_22.slice"


def test_a_hybrid_machine_counts_as_version_1(tmp_path: Path) -> None:
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified" / "cgroup.controllers").touch()
    assert cgroup_version(tmp_path) is CgroupVersion.V1
    (tmp_path / "cgroup.controllers").touch()
    assert cgroup_version(tmp_path) is CgroupVersion.V2


def test_an_ended_pods_cgroup_goes_from_every_hierarchy_and_its_neighbours_stay(tmp_path: Path) -> None:
    for hierarchy in ("memory", "cpu", "systemd"):
        (tmp_path / hierarchy / "kubepods/burstable" / f"pod{UID}" / "sandbox" / "child").mkdir(parents=True)
        (tmp_path / hierarchy / "kubepods/burstable/podother").mkdir()
    os.symlink("cpu", tmp_path / "cpuacct")

    remove_pod_cgroup(UID, QosClass.BURSTABLE, CgroupDriver.CGROUPFS, mount=tmp_path)

    for hierarchy in ("memory", "cpu", "systemd"):
        assert os.listdir(tmp_path / hierarchy / "kubepods/burstable") == ["podother"]


def test_a_second_removal_finds_nothing_and_is_content(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").touch()
    (tmp_path / "kubepods" / f"pod{UID}").mkdir(parents=True)
    remove_pod_cgroup(UID, QosClass.GUARANTEED, CgroupDriver.CGROUPFS, mount=tmp_path)
    remove_pod_cgroup(UID, QosClass.GUARANTEED, CgroupDriver.CGROUPFS, mount=tmp_path)
    assert os.listdir(tmp_path / "kubepods") == []


def test_a_cgroup_with_a_living_process_is_left_whole(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").touch()
    leaf = tmp_path / "kubepods" / f"pod{UID}" / "main"
    leaf.mkdir(parents=True)
    (leaf / "cgroup.procs").write_text("4711\n4712\n")
    empty = tmp_path / "kubepods" / f"pod{UID}" / "empty"
    empty.mkdir()

    with pytest.raises(Retryable, match="4711"):
        remove_pod_cgroup(UID, QosClass.GUARANTEED, CgroupDriver.CGROUPFS, mount=tmp_path)

    assert leaf.is_dir()
    assert empty.is_dir()


def test_a_uid_cannot_lead_to_another_cgroup() -> None:
    with pytest.raises(ValueError, match="UID"):
        pod_cgroup_parent("/../../system.slice", QosClass.GUARANTEED, CgroupDriver.CGROUPFS)


def test_systemd_is_asked_to_stop_the_pods_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/bin:/usr/bin")
    mount = tmp_path / "cgroup"
    pod = mount / pod_cgroup_path(UID, QosClass.BURSTABLE, CgroupDriver.SYSTEMD)
    pod.mkdir(parents=True)
    (mount / "cgroup.controllers").touch()

    remove_pod_cgroup(UID, QosClass.BURSTABLE, CgroupDriver.SYSTEMD, mount=mount)
    remove_pod_cgroup(UID, QosClass.BURSTABLE, CgroupDriver.SYSTEMD, mount=mount)

    assert (tmp_path / "asked").read_text() == "stop kubepods-burstable-pod0c1e_22.slice\n"
    assert not pod.exists()
    assert pod.parent.is_dir()


def test_without_systemctl_the_folders_are_removed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "cgroup.controllers").touch()
    pod = tmp_path / pod_cgroup_path(UID, QosClass.GUARANTEED, CgroupDriver.SYSTEMD)
    pod.mkdir(parents=True)
    remove_pod_cgroup(UID, QosClass.GUARANTEED, CgroupDriver.SYSTEMD, mount=tmp_path)
    assert not pod.exists()


def test_a_machine_without_cgroups_has_none_to_remove(tmp_path: Path) -> None:
    remove_pod_cgroup(UID, QosClass.BURSTABLE, CgroupDriver.CGROUPFS, mount=tmp_path / "none")


@pytest.mark.parametrize("driver", list(CgroupDriver))
@pytest.mark.parametrize("root", ["/", "/edge"])
def test_the_pods_that_have_a_cgroup_are_found_by_its_name(tmp_path: Path, driver: CgroupDriver, root: str) -> None:
    for uid, qos in {"a-1": QosClass.GUARANTEED, "b-2": QosClass.BURSTABLE, "c-3": QosClass.BEST_EFFORT}.items():
        (tmp_path / "memory" / pod_cgroup_path(uid, qos, driver, root)).mkdir(parents=True)
    (tmp_path / "cpu" / pod_cgroup_path("d-4", QosClass.BURSTABLE, driver, root)).mkdir(parents=True)
    (tmp_path / "cpu" / pod_cgroup_path("x", QosClass.BURSTABLE, driver, "/other")).mkdir(parents=True)
    (tmp_path / "cpu" / qos_cgroup_path(QosClass.BURSTABLE, driver, root) / "podless").mkdir()
    (tmp_path / "cpu" / qos_cgroup_path(QosClass.BURSTABLE, driver, root) / "other.slice").mkdir()
    found = pod_cgroups(driver, root, mount=tmp_path)
    if driver is CgroupDriver.CGROUPFS:
        assert found.pop("less") is QosClass.BURSTABLE
    assert found == {
        "a-1": QosClass.GUARANTEED,
        "b-2": QosClass.BURSTABLE,
        "c-3": QosClass.BEST_EFFORT,
        "d-4": QosClass.BURSTABLE,
    }


def test_one_is_deserted_where_no_process_is_in_it_in_any_hierarchy(tmp_path: Path) -> None:
    for top in ("memory", "cpu"):
        (tmp_path / top / "kubepods/podu/child").mkdir(parents=True)
    assert is_deserted("u", QosClass.GUARANTEED, CgroupDriver.CGROUPFS, mount=tmp_path)
    (tmp_path / "cpu/kubepods/podu/child/cgroup.procs").write_text("17\n")
    assert not is_deserted("u", QosClass.GUARANTEED, CgroupDriver.CGROUPFS, mount=tmp_path)


def test_an_empty_cgroup_is_removed_without_looking_into_it(tmp_path: Path) -> None:
    where = (UID, QosClass.BURSTABLE, CgroupDriver.CGROUPFS)
    folders = [tmp_path / name / pod_cgroup_path(*where) for name in ("memory", "pids")]
    for folder in folders:
        folder.mkdir(parents=True)
    assert removed_empty_cgroup(*where, mount=tmp_path)
    assert not any(folder.exists() for folder in folders)
    assert removed_empty_cgroup(*where, mount=tmp_path)


def test_a_cgroup_that_holds_something_or_is_systemds_is_not_removed_so(tmp_path: Path) -> None:
    where = (UID, QosClass.BURSTABLE, CgroupDriver.CGROUPFS)
    inner = tmp_path / "memory" / pod_cgroup_path(*where) / "container"
    inner.mkdir(parents=True)
    assert not removed_empty_cgroup(*where, mount=tmp_path)
    assert inner.exists()
    assert not removed_empty_cgroup(UID, QosClass.BURSTABLE, CgroupDriver.SYSTEMD, mount=tmp_path)
