"""What outlives its container is ended, in the pod's own cgroup alone."""

import subprocess
from pathlib import Path

from agent.pods.cgroups import CgroupDriver
from agent.pods.qos import QosClass
from agent.pods.scripts.leftovers import end_leftovers


def end(mount: Path) -> int:
    return end_leftovers("u-1", QosClass.BEST_EFFORT, CgroupDriver.CGROUPFS, "/", mount=mount)


def cgroup(mount: Path, path: str, *pids: int) -> None:
    folder = mount / "memory" / "kubepods" / "besteffort" / path
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))


def test_the_pods_processes_are_killed_and_no_others(tmp_path: Path) -> None:
    mine, below, others = (subprocess.Popen(["sleep", "60"]) for _ in range(3))
    try:
        cgroup(tmp_path, "podu-1", mine.pid)
        cgroup(tmp_path, "podu-1/container/deeper", below.pid)
        cgroup(tmp_path, "podu-12", others.pid)
        assert end(tmp_path) == 2
        assert (mine.wait(60), below.wait(60)) == (-9, -9)
        assert others.poll() is None
    finally:
        for process in (mine, below, others):
            process.kill()
            process.wait()


def test_no_cgroup_and_processes_that_are_gone_are_fine(tmp_path: Path) -> None:
    assert end(tmp_path) == 0
    gone = subprocess.Popen(["true"])
    gone.wait()
    cgroup(tmp_path, "podu-1", gone.pid)
    assert end(tmp_path) == 1
