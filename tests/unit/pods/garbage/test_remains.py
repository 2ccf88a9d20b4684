"""What stays of a pod that has ended: its logs while there is room, and not its cgroup."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from agent.errors import Retryable
from agent.model.record import PodRecord
from agent.pods.garbage.kept import KeptPods
from agent.pods.garbage.traces import remove_kept
from agent.pods.knowledge import Retention, StopCause
from agent.pods.worker import PodWorker
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.fakes.store import MemoryStore
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


KEEP = "edgelet.io/keep-for"


def keeping(duration: str, **spec: Any) -> PodRecord:
    return record({"annotations": {KEEP: duration}}, **spec)


async def finish(s: Scene, wanted: PodRecord) -> PodWorker:
    worker = await s.running(wanted)
    s.exit("main")
    await s.until(lambda: s.phase == "Succeeded")
    await quiet()
    return worker


@with_skipped_time
async def test_a_finished_pod_is_collected_when_its_time_is_over_and_not_its_status(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await finish(s, keeping("30m", restartPolicy="Never"))
        told = worker.status
        (said,) = s.events.messages("KeptForDebugging")
        assert said.endswith("(30m0s from the pod's end)")
        s.skip(29 * 60)
        await quiet()
        assert len(s.cri.containers) == 1
        s.skip(61)
        await s.until(lambda: not s.cri.containers and not s.cri.sandboxes)
        await s.until(lambda: s.events.messages("KeptPodCollected"))
        assert list((tmp_path / "pods-logs").iterdir()) == []
        await quiet()
        assert worker.status == told
        assert s.moves.count("RunPodSandbox") == 1
        assert len(s.events.messages("KeptForDebugging")) == 1


@with_skipped_time
async def test_a_longer_time_holds_for_what_is_still_there_and_none_leaves_it_to_the_pods_object(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as s:
        worker = await finish(s, keeping("30m", restartPolicy="Never"))
        worker.update(keeping("1h", restartPolicy="Never"))
        await s.until(lambda: len(s.events.messages("KeptForDebugging")) == 2)
        s.skip(31 * 60)
        await quiet()
        assert len(s.cri.containers) == 1
        worker.update(record(restartPolicy="Never"))
        await quiet()
        s.skip(24 * 3600)
        await quiet()
        assert len(s.cri.containers) == 1
        assert worker.record.uid not in s.machine.kept


@with_skipped_time
async def test_the_object_goes_at_once_and_the_containers_stay_without_their_worker(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(keeping("30m"))
        worker.stop(StopCause.DELETED, 30)
        await worker.gone.wait()
        assert s.gone
        assert len(s.cri.containers) == 1
        assert [box.ready for box in s.cri.sandboxes.values()] == [False]
        assert s.machine.kept.gone == {"u-1"}
        keeper = s.tasks.create_task(s.machine.kept.run(partial(remove_kept, s.machine)))
        await quiet()
        s.skip(29 * 60)
        await quiet()
        assert len(s.cri.containers) == 1
        s.skip(61)
        await s.until(lambda: s.events.messages("KeptPodCollected"))
        assert (s.cri.containers, s.cri.sandboxes) == ({}, {})
        assert s.events.messages("KeptPodCollected") == [
            "Containers, their logs and file systems were removed from the node: its time is over"
        ]
        assert s.machine.kept.gone == set()
        keeper.cancel()


@with_skipped_time
async def test_a_pod_of_which_nothing_ran_is_not_kept(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.fail("RunPodSandbox", grpc.StatusCode.UNKNOWN, "no network")
        worker = s.start(keeping("30m"))
        await s.until(lambda: s.events.messages("FailedCreatePodSandBox"))
        worker.stop(StopCause.DELETED, 30)
        await worker.gone.wait()
        assert s.machine.kept.gone == set()
        assert s.events.messages("KeptForDebugging") == []


@with_skipped_time
async def test_a_record_that_cannot_be_written_holds_the_object_until_it_can(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(keeping("30m"))
        s.machine.kept = kept = KeptPods(RefusingStore(), s.events, s.time.wall)
        worker.stop(StopCause.DELETED, 30)
        await s.until(lambda: s.cri.called("StopPodSandbox"))
        await quiet()
        assert not s.gone
        kept._store = MemoryStore()
        s.skip(2)
        await worker.gone.wait()
        assert s.gone


class RefusingStore(MemoryStore):
    async def put(self, key: str, value: bytes) -> int:
        raise Retryable("the disk is full")
