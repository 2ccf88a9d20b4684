"""How containers end: hooks, turns and grace, with a pod's end and a shorter grace coming in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.cri._generated import api_pb2 as pb
from agent.pods.knowledge import StopCause
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.unit.pods.scene import Scene, container_record, record, scene

PRE_STOP: dict[str, Any] = {"preStop": {"exec": {"command": ["drain"]}}}


def with_sidecars(**side: Any) -> Any:
    sides = [{"name": f"side{n}", "image": "busybox", "restartPolicy": "Always", **side} for n in (1, 2)]
    return record(initContainers=sides)


def stopped(s: Scene) -> list[str]:
    """The containers in the order in which they were told to stop."""
    names = {c.id: c.config.metadata.name for c in s.cri.containers.values()}
    return [names[request.container_id] for request in s.cri.called("StopContainer")]


def timeouts(s: Scene) -> list[int]:
    return [request.timeout for request in s.cri.called("StopContainer")]


# ------------------------------------------------------------ grace


@pytest.mark.parametrize(("grace", "given"), [(30, 30), (3, 3), (2, 2), (1, 2), (0, 2)])
@with_skipped_time
async def test_a_container_has_the_grace_period_and_never_less_than_two_seconds(
    tmp_path: Path, grace: int, given: int
) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running()
        worker.stop(StopCause.DELETED, grace)
        await worker.gone.wait()
        assert timeouts(s) == [given]


@pytest.mark.parametrize(
    ("spec", "probe", "given"), [(30, None, 30), (30, 5, 5), (5, 30, 30), (30, 1, 2), (0, None, 2)]
)
@with_skipped_time
async def test_a_failed_probes_own_grace_takes_the_place_of_the_pods(
    tmp_path: Path, spec: int, probe: int | None, given: int
) -> None:
    liveness = {"exec": {"command": ["ok"]}, "failureThreshold": 1, "terminationGracePeriodSeconds": probe}
    async with scene(tmp_path) as s:
        s.cri.behaviours["main"].exec_results.append(pb.ExecSyncResponse(exit_code=1))
        containers = [{"name": "main", "image": "busybox", "livenessProbe": liveness}]
        s.start(record(containers=containers, terminationGracePeriodSeconds=spec))
        await s.cri.reached("StopContainer")
        assert timeouts(s) == [given]
        assert s.events.messages("Killing") == ["Container main failed liveness probe, will be restarted"]


@with_skipped_time
async def test_a_pre_stop_hook_takes_its_time_from_the_grace_period(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        drained = s.cri.hold("ExecSync")
        worker = await s.running(container_record(lifecycle=PRE_STOP))
        worker.stop(StopCause.DELETED, 30)
        await s.cri.reached("ExecSync")
        assert "StopContainer" not in s.moves
        s.skip(10)
        drained.set()
        await worker.gone.wait()
        assert timeouts(s) == [20]


@with_skipped_time
async def test_a_pre_stop_hook_that_hangs_is_given_up_when_the_grace_is_over(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.hold("ExecSync")
        worker = await s.running(container_record(lifecycle=PRE_STOP))
        worker.stop(StopCause.DELETED, 30)
        await s.cri.reached("ExecSync")
        s.skip(31)
        await worker.gone.wait()
        assert timeouts(s) == [2]
        assert "FailedPreStopHook" not in s.events.reasons


@with_skipped_time
async def test_a_pre_stop_sleep_is_cut_by_the_grace_period(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(container_record(lifecycle={"preStop": {"sleep": {"seconds": 50}}}))
        worker.stop(StopCause.DELETED, 30)
        await quiet()
        assert "StopContainer" not in s.moves
        s.skip(31)
        await worker.gone.wait()
        assert timeouts(s) == [2]


@with_skipped_time
async def test_a_shorter_grace_period_shortens_a_hook_and_does_not_begin_it_anew(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        drained = s.cri.hold("ExecSync")
        worker = await s.running(container_record(lifecycle=PRE_STOP))
        worker.stop(StopCause.DELETED, 300)
        await s.cri.reached("ExecSync")
        worker.stop(StopCause.DELETED, 20)
        await quiet()
        assert "StopContainer" not in s.moves
        s.skip(5)
        drained.set()
        await worker.gone.wait()
        assert timeouts(s) == [15]
        assert len(s.cri.called("ExecSync")) == 1
        assert s.events.reasons.count("Killing") == 1


@with_skipped_time
async def test_a_hook_that_has_ended_is_not_run_again_with_a_shorter_grace(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.behaviours["main"].obeys_stop = False
        worker = await s.running(container_record(lifecycle=PRE_STOP))
        worker.stop(StopCause.DELETED, 300)
        await s.cri.reached("StopContainer")
        worker.stop(StopCause.DELETED, 0)
        await s.cri.reached("StopContainer", 2)
        s.skip(3)
        await worker.gone.wait()
        assert timeouts(s) == [300, 2]
        assert len(s.cri.called("ExecSync")) == 1


@with_skipped_time
async def test_a_hook_that_has_ended_is_not_run_again_by_another_agent(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.behaviours["main"].obeys_stop = False
        worker = await s.running(container_record(lifecycle=PRE_STOP))
        worker.stop(StopCause.DELETED, 300)
        await s.cri.reached("StopContainer")
        await s.killed_agent()
        worker = s.make(container_record(lifecycle=PRE_STOP))
        worker.stop(StopCause.DELETED, 300)
        s.run(worker)
        await s.cri.reached("StopContainer", 2)
        assert len(s.cri.called("ExecSync")) == 1
        s.skip(301)
        await worker.gone.wait()


@with_skipped_time
async def test_a_hook_that_an_agent_died_in_is_run_by_the_next(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        held = s.cri.hold("ExecSync")
        worker = await s.running(container_record(lifecycle=PRE_STOP))
        worker.stop(StopCause.DELETED, 30)
        await s.cri.reached("ExecSync")
        await s.killed_agent()
        held.set()
        worker = s.make(container_record(lifecycle=PRE_STOP))
        worker.stop(StopCause.DELETED, 30)
        await s.run(worker)
        assert len(s.cri.called("ExecSync")) == 2


@with_skipped_time
async def test_the_pods_end_interrupts_a_kill_that_a_probe_asked_for(tmp_path: Path) -> None:
    liveness = {"exec": {"command": ["ok"]}, "failureThreshold": 1}
    async with scene(tmp_path) as s:
        s.cri.behaviours["main"].exec_results.append(pb.ExecSyncResponse(exit_code=1))
        s.cri.behaviours["main"].obeys_stop = False
        sick = {"name": "main", "image": "busybox", "livenessProbe": liveness}
        worker = s.start(record(containers=[sick, {"name": "other", "image": "busybox"}]))
        await s.cri.reached("StopContainer")
        worker.stop(StopCause.DELETED, 10)
        await s.cri.reached("StopContainer", 3)
        assert sorted(zip(stopped(s)[1:], timeouts(s)[1:], strict=True)) == [("main", 10), ("other", 10)]
        s.skip(11)
        await worker.gone.wait()


@with_skipped_time
async def test_a_failed_pre_stop_hook_is_told_and_holds_nothing_up(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.behaviours["main"].exec_results.append(pb.ExecSyncResponse(exit_code=9, stdout=b"secret"))
        worker = await s.running(container_record(lifecycle=PRE_STOP))
        worker.stop(StopCause.DELETED, 30)
        await worker.gone.wait()
        assert s.events.messages("FailedPreStopHook") == ["PreStopHook failed"]
        assert timeouts(s) == [30]


# ------------------------------------------------------------ turns


@with_skipped_time
async def test_sidecars_stop_after_the_main_container_from_the_last_to_the_first(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.behaviours["main"].obeys_stop = False
        worker = await s.running(with_sidecars())
        worker.stop(StopCause.DELETED, 30)
        await s.cri.reached("StopContainer")
        await quiet()
        assert stopped(s) == ["main"]
        s.skip(10)
        s.cri.exit(s.cri.container("main").id, 0)
        await s.cri.reached("StopContainer", 3)
        assert stopped(s) == ["main", "side2", "side1"]
        assert timeouts(s) == [30, 20, 20]
        await worker.gone.wait()


@with_skipped_time
async def test_the_hooks_of_sidecars_run_while_the_main_container_still_runs(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.behaviours["main"].obeys_stop = False
        worker = await s.running(with_sidecars(lifecycle=PRE_STOP))
        worker.stop(StopCause.DELETED, 30)
        await s.cri.reached("ExecSync", 2)
        await quiet()
        assert stopped(s) == ["main"]
        s.cri.exit(s.cri.container("main").id, 0)
        await worker.gone.wait()
        assert s.events.reasons.count("Killing") == 3


@with_skipped_time
async def test_sidecars_wait_no_longer_than_the_grace_and_then_end_together(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        for name in ("main", "side1", "side2"):
            s.cri.behaviours[name].obeys_stop = False
        worker = await s.running(with_sidecars())
        worker.stop(StopCause.DELETED, 30)
        await s.cri.reached("StopContainer")
        s.skip(30)
        await s.cri.reached("StopContainer", 3)
        assert sorted(stopped(s)[1:]) == ["side1", "side2"]
        assert timeouts(s) == [30, 2, 2]
        s.skip(3)
        await worker.gone.wait()


@with_skipped_time
async def test_a_shorter_grace_reaches_containers_and_sidecars_that_wait(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.behaviours["main"].obeys_stop = False
        worker = await s.running(with_sidecars())
        worker.stop(StopCause.DELETED, 300)
        await s.cri.reached("StopContainer")
        worker.stop(StopCause.DELETED, 5)
        await s.cri.reached("StopContainer", 2)
        assert timeouts(s) == [300, 5]
        s.skip(6)
        await worker.gone.wait()
        assert timeouts(s) == [300, 5, 2, 2]


# ------------------------------------------------------------ readiness meanwhile

READINESS: dict[str, Any] = {"exec": {"command": ["ready"]}, "periodSeconds": 2, "failureThreshold": 1}


def ready(s: Scene) -> tuple[bool, str]:
    """Of the container, and of the pod, as last told."""
    condition = s.updates[-1].status.condition("Ready")
    assert condition is not None
    return s.main().ready, condition.status


@with_skipped_time
async def test_readiness_is_probed_and_told_while_the_container_is_being_stopped(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.behaviours["main"].obeys_stop = False
        worker = s.start(container_record(readinessProbe=READINESS, livenessProbe={**READINESS, "periodSeconds": 1}))
        await s.until(lambda: s.updates and ready(s) == (True, "True"))
        worker.stop(StopCause.DELETED, 30)
        await s.cri.reached("StopContainer")
        probes = len(s.cri.called("ExecSync"))
        s.cri.behaviours["main"].exec_results.append(pb.ExecSyncResponse(exit_code=1))
        s.skip(2)
        await s.until(lambda: ready(s) == (False, "False"))
        assert len(s.cri.called("ExecSync")) == probes + 1, "liveness is probed no more"
        assert s.main().state.running is not None
        s.skip(2)
        await s.until(lambda: ready(s) == (True, "True"))
        s.skip(30)
        await worker.gone.wait()
        assert ready(s) == (False, "False")


@with_skipped_time
async def test_readiness_is_told_while_another_containers_image_is_pulled(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(
            record(
                containers=[
                    {"name": "main", "image": "busybox", "readinessProbe": READINESS},
                    {"name": "other", "image": "busybox"},
                ]
            )
        )
        await s.until(lambda: s.main().ready)
        s.cri.images.clear()
        s.cri.hold("PullImage")
        s.exit("other", 1)
        await s.cri.reached("PullImage", 2)
        s.cri.behaviours["main"].exec_results.append(pb.ExecSyncResponse(exit_code=1))
        s.skip(2)
        await s.until(lambda: not s.main().ready)
        worker.stop(StopCause.DELETED, 0)
        await worker.gone.wait()


@with_skipped_time
async def test_an_agent_that_comes_back_while_a_pod_ends_says_it_as_ready_as_it_was(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.behaviours["main"].obeys_stop = False
        ending = container_record(readinessProbe=READINESS)
        worker = s.start(ending)
        await s.until(lambda: s.updates and ready(s) == (True, "True"))
        last = s.updates[-1].status
        await s.killed_agent()
        s.updates.clear()
        worker = s.make(ending, last)
        worker.stop(StopCause.DELETED, 30)
        s.run(worker)
        await s.cri.reached("StopContainer")
        assert [ready(s)] == [(True, "True")]
        s.cri.behaviours["main"].exec_results.append(pb.ExecSyncResponse(exit_code=1))
        s.skip(2)
        await s.until(lambda: ready(s) == (False, "False"))
        s.skip(30)
        await worker.gone.wait()
