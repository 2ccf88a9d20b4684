"""A pod's cgroup in the kernel's own cgroup file systems, whichever version they are: made, limited, removed."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import Retryable
from agent.pods.cgroup_limits import CgroupLimits, CgroupRules, files, pod_cgroup_limits
from agent.pods.cgroup_tree import CgroupTree
from agent.pods.cgroups import (
    CGROUP_FS,
    CgroupDriver,
    CgroupVersion,
    cgroup_version,
    pod_cgroup_path,
    remove_pod_cgroup,
)
from agent.pods.qos import QosClass
from tests.unit.pods.test_cgroup_limits import BURSTABLE, pod

UID = "0c1e-22"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def root() -> Iterator[str]:
    """A cgroup of the test's own; what is left of it is removed."""
    name = f"/edgelet-test-{uuid.uuid4().hex[:8]}"
    yield name
    for top in _tops():
        for parent, _, _ in os.walk(top / name.strip("/"), topdown=False):
            os.rmdir(parent)


def _tops() -> list[Path]:
    if cgroup_version() is CgroupVersion.V2:
        return [CGROUP_FS]
    return [CGROUP_FS / name for name in ("memory", "pids", "cpu")]


def _made(root: str) -> list[Path]:
    path = pod_cgroup_path(UID, QosClass.BURSTABLE, CgroupDriver.CGROUPFS, root)
    folders = [top / path for top in _tops()]
    for folder in folders:
        (folder / "sandbox").mkdir(parents=True)
    return folders


def test_an_ended_pods_cgroups_go_and_their_parents_stay(root: str) -> None:
    folders = _made(root)
    remove_pod_cgroup(UID, QosClass.BURSTABLE, CgroupDriver.CGROUPFS, root)
    assert not any(folder.exists() for folder in folders)
    assert all(folder.parent.is_dir() for folder in folders)


def test_a_living_process_keeps_its_cgroups(root: str) -> None:
    folders = _made(root)
    with subprocess.Popen(["sleep", "60"]) as process:
        (folders[0] / "sandbox" / "cgroup.procs").write_text(str(process.pid))
        with pytest.raises(Retryable, match=str(process.pid)):
            remove_pod_cgroup(UID, QosClass.BURSTABLE, CgroupDriver.CGROUPFS, root)
        process.kill()
    assert all((folder / "sandbox").is_dir() for folder in folders)
    remove_pod_cgroup(UID, QosClass.BURSTABLE, CgroupDriver.CGROUPFS, root)
    assert not any(folder.exists() for folder in folders)


def test_the_kernel_takes_what_the_tree_says(root: str) -> None:
    made = pod(BURSTABLE)
    tree = CgroupTree(CgroupDriver.CGROUPFS, root, CgroupRules(pod_pids=50), CgroupLimits(2048, memory_bytes=1 << 30))
    tree.prepare(0)
    tree.make_pod(made, 100)
    path = pod_cgroup_path(made.uid, QosClass.BURSTABLE, CgroupDriver.CGROUPFS, root)
    for file in files(pod_cgroup_limits(made, CgroupRules(pod_pids=50)), cgroup_version()):
        top = CGROUP_FS if cgroup_version() is CgroupVersion.V2 else CGROUP_FS / file.controller
        assert (top / path / file.name).read_text().strip() == file.value
    tree.remove_pod(made, 0)
    assert not any((top / path).exists() for top in _tops())
