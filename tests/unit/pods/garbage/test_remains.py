"""What stays of a pod that has ended: its logs while there is room, and not its cgroup."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.pods.knowledge import Retention, StopCause
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.unit.pods.scene import TEST_CGROUPS, Scene, record, scene


def hierarchy(folder: Path) -> Path:
    """One that no limit of the tests is written to: unlike a kernel's, its folders must be empty to be removed."""
    made = folder / "cgroups/pids"
    made.mkdir(parents=True)
    return made / TEST_CGROUPS.strip("/") / "kubepods/besteffort/podu-1"


async def finished(s: Scene) -> None:
    await s.running(record(restartPolicy="Never"))
    s.exit("main")
    await s.until(lambda: s.phase == "Succeeded")
    await quiet()


@with_skipped_time
async def test_a_finished_pod_gives_its_cgroup_back_and_keeps_its_dead_containers(tmp_path: Path) -> None:
    cgroup = hierarchy(tmp_path)
    async with scene(tmp_path) as s:
        await s.running(record(restartPolicy="Never"))
        assert cgroup.is_dir()
        s.exit("main")
        await s.until(lambda: s.phase == "Succeeded")
        await s.until(lambda: not cgroup.exists())
        assert len(s.cri.containers) == len(s.cri.sandboxes) == 1
        assert list((tmp_path / "pods-logs").iterdir()) != []


@with_skipped_time
async def test_a_process_that_is_left_in_it_is_said_and_looked_for_again(tmp_path: Path) -> None:
    cgroup = hierarchy(tmp_path)
    async with scene(tmp_path) as s:
        await s.running(record(restartPolicy="Never"))
        (cgroup / "child").mkdir()
        (cgroup / "child/cgroup.procs").write_text("4194304\n")  # the highest id there is, and nobody's
        s.exit("main")
        await s.until(lambda: s.phase == "Succeeded")
        await quiet()
        assert cgroup.is_dir()
        (cgroup / "child/cgroup.procs").unlink()
        s.skip(2)
        await s.until(lambda: not cgroup.exists())


@with_skipped_time
async def test_a_short_disk_costs_a_finished_pod_its_containers_and_logs_and_not_its_status(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await finished(s)
        (worker,) = s.workers.values()
        told = worker.status
        await worker.reclaim()
        assert (s.cri.containers, s.cri.sandboxes) == ({}, {})
        assert list((tmp_path / "pods-logs").iterdir()) == []
        worker.wake()
        await quiet()
        assert worker.status == told
        assert s.cri.called("RunPodSandbox")[1:] == []
        worker.stop(StopCause.DELETED, 30)
        await worker.gone.wait()


@with_skipped_time
async def test_a_short_disk_costs_a_running_pod_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running()
        await worker.reclaim()
        await quiet()
        assert s.is_running("main")
        assert s.moves.count("RemovePodSandbox") == 0


@with_skipped_time
async def test_a_pod_that_is_deleted_while_it_is_cleared_away_lets_nobody_wait(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await finished(s)
        (worker,) = s.workers.values()
        worker.stop(StopCause.DELETED, 30)
        await asyncio.gather(worker.reclaim(), worker.gone.wait())


@with_skipped_time
async def test_containers_of_a_gone_pod_stay_for_their_least_time(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.machine.retention = Retention(min_age_s=60)
        worker = await s.running()
        worker.stop(StopCause.DELETED, 30)
        await s.until(lambda: s.gone)  # its object may go
        s.skip(50)
        await quiet()
        assert len(s.cri.containers) == 1
        s.skip(11)
        await worker.gone.wait()
        assert (s.cri.containers, s.cri.sandboxes) == ({}, {})


@with_skipped_time
async def test_they_do_not_stay_in_the_way_of_a_pod_of_the_same_name(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.machine.retention = Retention(min_age_s=60)
        worker = await s.running()
        worker.stop(StopCause.DELETED, 30)
        await s.until(lambda: s.gone)
        worker.make_way()
        await worker.gone.wait()
        assert s.cri.containers == {}
