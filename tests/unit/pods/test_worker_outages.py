"""A pod's worker while the runtime or the agent itself goes and comes back."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from loguru import logger

from agent.cri._generated import api_pb2 as pb
from agent.model.status import Phase
from agent.pods.knowledge import StopCause
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.unit.pods.scene import container_record, record, scene

AWAY = grpc.StatusCode.UNAVAILABLE


# ------------------------------------------------------------ the runtime goes and comes back


@pytest.mark.parametrize("call", ["ListPodSandbox", "ListContainers", "PodSandboxStatus", "CreateContainer"])
@with_skipped_time
async def test_a_runtime_that_is_away_at_any_step_is_asked_again(tmp_path: Path, call: str) -> None:
    async with scene(tmp_path) as s:
        s.cri.fail(call, AWAY)
        worker = s.start()
        await s.cri.reached(call)
        await quiet()
        assert s.phase in ("", "Pending")
        s.skip(1)
        await s.until(lambda: s.phase == "Running")
        assert worker.status is not None


@with_skipped_time
async def test_a_runtime_that_stays_away_is_one_line_in_the_log_of_a_pod(tmp_path: Path) -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="WARNING")
    try:
        async with scene(tmp_path) as s:
            s.cri.fail("ListPodSandbox", AWAY, times=4)
            s.start()
            for tries in range(1, 5):
                await s.cri.reached("ListPodSandbox", tries)
                await quiet()
                s.skip(1)
            await s.until(lambda: s.phase == "Running")
    finally:
        logger.remove(sink)
    assert len(lines) == 1


@pytest.mark.parametrize("call", ["RunPodSandbox", "StartContainer"])
@with_skipped_time
async def test_a_runtime_that_goes_while_it_starts_something_is_asked_again(tmp_path: Path, call: str) -> None:
    async with scene(tmp_path) as s:
        s.cri.fail(call, AWAY)
        s.start()
        await s.cri.reached(call)
        await quiet()
        s.skip(1)
        await s.until(lambda: s.phase == "Running")
        assert len(s.cri.containers) == len(s.cri.sandboxes) == 1


@pytest.mark.parametrize("call", ["StopContainer", "StopPodSandbox", "RemovePodSandbox"])
@with_skipped_time
async def test_a_runtime_that_goes_while_a_pod_ends_is_asked_again(tmp_path: Path, call: str) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running()
        s.cri.fail(call, AWAY)
        worker.stop(StopCause.DELETED, 30)
        await s.cri.reached(call)
        await quiet()
        s.skip(1)
        await worker.gone.wait()
        assert s.cri.sandboxes == {}


@with_skipped_time
async def test_a_runtime_that_refuses_to_stop_a_container_is_asked_again_but_not_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running()
        s.cri.fail("StopContainer", grpc.StatusCode.UNKNOWN, "the shim does not answer", times=2)
        worker.stop(StopCause.DELETED, 30)
        await s.cri.reached("StopContainer")
        await quiet()
        assert len(s.cri.called("StopContainer")) == 1
        s.skip(1)
        await s.cri.reached("StopContainer", 2)
        await quiet()
        s.skip(2)
        await worker.gone.wait()


# ------------------------------------------------------------ the agent goes and comes back


@with_skipped_time
async def test_a_running_container_is_adopted_and_keeps_its_readiness(tmp_path: Path) -> None:
    readiness = {"exec": {"command": ["check"]}, "periodSeconds": 1000}
    wanted = container_record(readinessProbe=readiness)
    async with scene(tmp_path) as s:
        worker = s.start(wanted)
        await s.until(lambda: s.updates and s.main().ready)
        last, calls = worker.status, len(s.cri.calls)
        await s.killed_agent()
        s.updates.clear()
        s.start(wanted, last)
        await s.until(lambda: s.updates)
        await quiet()
        assert [name for name, _ in s.cri.calls[calls:] if name in ("CreateContainer", "ExecSync")] == []
        assert all(update.status.containerStatuses[0].ready for update in s.updates)
        assert s.main().restartCount == 0


@with_skipped_time
async def test_without_a_record_the_api_servers_word_on_readiness_counts(tmp_path: Path) -> None:
    readiness = {"exec": {"command": ["check"]}, "periodSeconds": 1000}
    async with scene(tmp_path) as s:
        s.start(container_record(readinessProbe=readiness))
        await s.until(lambda: s.updates and s.main().ready)
        told = {"name": "main", "containerID": s.main().containerID, "ready": True, "started": True}
        await s.killed_agent()
        s.updates.clear()
        containers = [{"name": "main", "image": "busybox", "readinessProbe": readiness}]
        s.start(record(status={"phase": "Running", "containerStatuses": [told]}, containers=containers))
        await s.until(lambda: s.updates)
        assert s.main().ready


@with_skipped_time
async def test_a_container_that_was_made_and_not_started_is_started_not_doubled(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.hold("StartContainer")
        s.start()
        await s.cri.reached("StartContainer")
        await s.killed_agent()
        s.cri.hold("StartContainer").set()
        await quiet()
        (made,) = s.cri.containers.values()
        made.state = pb.CONTAINER_CREATED
        s.start()
        await s.until(lambda: s.phase == "Running")
        assert list(s.cri.containers) == [made.id]
        assert s.main().restartCount == 0


@with_skipped_time
async def test_a_pod_that_had_ended_is_not_run_again_whatever_is_left_of_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(record(restartPolicy="Never"))
        s.exit("main", 0)
        await s.until(lambda: s.phase == "Succeeded")
        await s.cri.reached("StopPodSandbox")  # else the call of before is counted as one of after
        last = worker.status
        await s.killed_agent()
        s.cri.sandboxes.clear()
        s.cri.containers.clear()
        calls = len(s.moves)
        s.updates.clear()
        s.start(record(restartPolicy="Never"), last)
        await s.until(lambda: s.updates)
        await quiet()
        assert s.phase is Phase.SUCCEEDED
        assert s.moves[calls:] == []
