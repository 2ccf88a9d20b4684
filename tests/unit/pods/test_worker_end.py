"""A pod's end in its worker: nothing of it stays, and nothing is waited for that it does not need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.errors import Retryable
from agent.pods.admission.gate import Verdict
from agent.pods.knowledge import StopCause
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.unit.pods.scene import container_record, record, scene

CONFIG_VOLUME: dict[str, Any] = {"name": "config", "configMap": {"name": "settings"}}


@with_skipped_time
async def test_a_deleted_pod_leaves_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.objects.put("configmaps", "settings", data={"a": "1"})
        worker = await s.running(record(volumes=[CONFIG_VOLUME]))
        worker.stop(StopCause.DELETED, 30)
        await worker.gone.wait()
        assert s.moves[4:] == ["StopContainer", "StopPodSandbox", "RemovePodSandbox"]
        assert (s.cri.sandboxes, s.cri.containers) == ({}, {})
        assert not (s.root / "pods/u-1").exists()
        assert list((tmp_path / "pods-logs").iterdir()) == []
        assert list((tmp_path / "links").iterdir()) == []
        assert s.objects.retained == {}
        assert s.tokens.forgotten == ["u-1"]


@with_skipped_time
async def test_that_a_pod_begins_to_end_can_wait_to_be_told_with_its_end(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(record({"generation": 1}))
        s.updates.clear()
        s.cri.hold("StopContainer")
        worker.update(record({"generation": 2}))
        worker.stop(StopCause.DELETED, 30)
        await s.cri.reached("StopContainer")
        assert [(u.status.observedGeneration, u.settle_s > 0) for u in s.updates] == [(2, True)]


@with_skipped_time
async def test_a_container_whose_sandbox_somebody_removed_is_removed_too(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running()
        s.cri.record_exit(s.cri.container("main").id)
        s.cri.sandboxes.clear()
        worker.stop(StopCause.DELETED, 30)
        await worker.gone.wait()
        assert s.cri.containers == {}


@with_skipped_time
async def test_the_api_server_hears_of_the_end_before_the_machine_is_cleaned(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        removed = s.cri.hold("RemovePodSandbox")
        worker = await s.running()
        worker.stop(StopCause.DELETED, 30)
        await s.until(lambda: s.gone)
        assert not worker.gone.is_set()
        removed.set()
        await worker.gone.wait()
        assert [update.gone for update in s.updates].count(True) == 1


@with_skipped_time
async def test_a_pod_deleted_before_the_first_look_makes_nothing_and_is_gone(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = s.make()
        worker.stop(StopCause.DELETED, 30)
        await s.run(worker)
        assert (s.moves, s.gone, s.phase) == ([], True, "Failed")


@with_skipped_time
async def test_a_deletion_does_not_wait_for_an_image(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.hold("PullImage")
        worker = s.start()
        await s.cri.reached("PullImage")
        worker.stop(StopCause.DELETED, 30)
        await worker.gone.wait()
        assert s.cri.sandboxes == {}
        assert "CreateContainer" not in s.moves


@with_skipped_time
async def test_a_deletion_does_not_wait_for_the_api_server(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.objects.answers.clear()
        worker = s.start(record(volumes=[CONFIG_VOLUME]))
        await s.until(lambda: s.objects.asked)
        worker.stop(StopCause.DELETED, 30)
        await worker.gone.wait()
        assert s.cri.sandboxes == {}
        assert not (s.root / "pods/u-1").exists()


@with_skipped_time
async def test_a_deletion_does_not_wait_for_what_a_running_pod_refers_to(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.objects.put("configmaps", "settings", data={"a": "1"})
        worker = await s.running(record(volumes=[CONFIG_VOLUME]))
        s.objects.answers.clear()
        worker.objects_changed()
        await s.until(lambda: s.objects.asked == 2)
        worker.stop(StopCause.DELETED, 30)
        await worker.gone.wait()
        assert s.cri.sandboxes == {}


@with_skipped_time
async def test_a_deletion_does_not_wait_for_a_post_start_hook(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.hold("ExecSync")
        worker = s.start(container_record(lifecycle={"postStart": {"exec": {"command": ["sleep", "inf"]}}}))
        await s.cri.reached("ExecSync")
        worker.stop(StopCause.DELETED, 30)
        await worker.gone.wait()
        assert s.cri.containers == {}


@with_skipped_time
async def test_a_second_deletion_shortens_the_grace_period(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.behaviours["main"].obeys_stop = False
        worker = await s.running()
        worker.stop(StopCause.DELETED, 300)
        await s.cri.reached("StopContainer")
        worker.stop(StopCause.DELETED, 0)
        await s.cri.reached("StopContainer", 2)
        assert [request.timeout for request in s.cri.called("StopContainer")] == [300, 2]
        s.skip(3)
        await worker.gone.wait()


@with_skipped_time
async def test_a_second_deletion_never_lengthens_the_grace_period(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.behaviours["main"].obeys_stop = False
        worker = await s.running()
        worker.stop(StopCause.DELETED, 10)
        await s.cri.reached("StopContainer")
        worker.stop(StopCause.DELETED, 300)
        await quiet()
        assert len(s.cri.called("StopContainer")) == 1
        s.skip(11)
        await worker.gone.wait()


@with_skipped_time
async def test_a_pod_whose_deadline_passes_is_ended_and_stays_as_failed(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(record(activeDeadlineSeconds=60))
        s.skip(61)
        await s.until(lambda: s.phase == "Failed")
        status = s.updates[-1].status
        assert (status.reason, worker.gone.is_set(), s.gone) == ("DeadlineExceeded", False, False)
        assert s.events.reasons.count("DeadlineExceeded") == 1
        assert len(s.cri.containers) == 1
        worker.stop(StopCause.DELETED, 30)
        await worker.gone.wait()
        assert s.updates[-1].status.reason == "DeadlineExceeded"


@with_skipped_time
async def test_a_clock_that_jumps_by_years_ends_no_pod_before_its_deadline(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.running(record(activeDeadlineSeconds=60))
        right = s.machine.wall
        s.machine.wall = lambda: right() + 10 * 365 * 86400
        s.skip(40)
        s.workers["u-1"].wake()
        s.exit("main", 1)
        await s.until(lambda: s.main().restartCount == 1 and s.is_running("main"))
        assert s.phase == "Running"
        s.skip(21)
        await s.until(lambda: s.phase == "Failed")
        assert s.updates[-1].status.reason == "DeadlineExceeded"


@with_skipped_time
async def test_cleaning_up_is_tried_until_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running()
        s.cri.fail("RemovePodSandbox", grpc.StatusCode.UNKNOWN, "device is busy")
        s.tokens.error = Retryable("the record's disk is full")
        worker.stop(StopCause.DELETED, 30)
        await s.until(lambda: s.gone)
        await s.cri.reached("RemovePodSandbox")
        await quiet()
        s.skip(1)
        await s.cri.reached("RemovePodSandbox", 2)
        await quiet()
        s.skip(2)
        await worker.gone.wait()
        assert s.cri.sandboxes == {}


@with_skipped_time
async def test_an_error_of_the_disk_while_cleaning_up_ends_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [True]

    def vanished(*_: object, **__: object) -> bool:
        if broken.pop() if broken else False:
            raise FileNotFoundError("the cgroup's folder went while it was read")
        return True

    monkeypatch.setattr("agent.pods.cgroup_tree.removed_empty_cgroup", vanished)
    async with scene(tmp_path) as s:
        worker = await s.running()
        worker.stop(StopCause.DELETED, 30)
        await s.until(lambda: s.gone and not broken)
        await quiet()
        s.skip(1)
        await worker.gone.wait()


@pytest.mark.parametrize("rejected", [False, True])
@with_skipped_time
async def test_a_pod_that_ends_before_its_container_started_says_so_of_the_container(
    tmp_path: Path, rejected: bool
) -> None:
    async with scene(tmp_path) as s:
        if rejected:
            s.start(record(os={"name": "windows"}))
            await s.until(lambda: s.phase == "Failed")
            assert s.updates[-1].status.containerStatuses == ()
            return
        s.cri.hold("PullImage")
        worker = s.start()
        await s.cri.reached("PullImage")
        worker.stop(StopCause.DELETED, 30)
        await worker.gone.wait()
        ended = s.main().state.terminated
        assert ended is not None
        assert (s.phase, ended.reason, ended.exitCode) == ("Failed", "ContainerStatusUnknown", 137)


@with_skipped_time
async def test_an_evicted_pod_is_failed_for_good_and_its_volumes_go(tmp_path: Path) -> None:
    why = "The node was low on resource: memory. "
    async with scene(tmp_path) as s:
        s.objects.put("configmaps", "settings", data={"a": "1"})
        worker = await s.running(record(volumes=[CONFIG_VOLUME]))
        assert worker.is_active
        s.machine.gate.evict("u-1", Verdict("Evicted", why, evicted=True, grace_s=1, disruption=why))
        assert not worker.is_active
        await s.until(lambda: worker.is_down)
        status = s.updates[-1].status
        assert (status.phase, status.reason, status.message) == ("Failed", "Evicted", why)
        target = status.condition("DisruptionTarget")
        assert target is not None
        assert (target.status, target.reason, target.message) == ("True", "TerminationByKubelet", why)
        assert not (s.root / "pods/u-1/volumes").exists()

        await s.killed_agent()
        again = s.start(record(volumes=[CONFIG_VOLUME]))
        await s.until(lambda: again.is_down)
        assert s.updates[-1].status.reason == "Evicted"
        assert not s.is_running("main")


@with_skipped_time
async def test_a_pod_that_wrote_too_much_is_no_victim_of_a_disruption(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running()
        s.machine.gate.evict("u-1", Verdict("Evicted", "too much. ", evicted=True, grace_s=1))
        await s.until(lambda: worker.is_down)
        assert s.updates[-1].status.condition("DisruptionTarget") is None
