"""A start meets the end of its pod."""

from __future__ import annotations

from pathlib import Path

from agent.pods.knowledge import StopCause
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.unit.pods.scene import record, scene


@with_skipped_time
async def test_a_pod_that_is_deleted_while_it_waits_for_its_turn_gets_no_sandbox(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        made = s.cri.hold("RunPodSandbox")
        for number in range(4):
            s.start(record({"name": f"web-{number}", "uid": f"u-{number}"}))
        await s.cri.reached("RunPodSandbox", 4)
        waits = s.start(record({"name": "web-4", "uid": "u-4"}))
        await quiet()
        waits.stop(StopCause.DELETED, 30)
        made.set()
        await waits.gone.wait()
        assert s.moves.count("RunPodSandbox") == 4


@with_skipped_time
async def test_a_call_that_starts_a_container_is_not_given_up_when_its_pod_is_deleted(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        started = s.cri.hold("StartContainer")
        worker = s.start(record())
        await s.cri.reached("StartContainer")
        worker.stop(StopCause.DELETED, 30)
        await quiet()
        # The runtime is in the middle of it: nothing is stopped or removed, and the end is not told.
        assert s.moves[-1] == "StartContainer"
        assert not s.gone
        started.set()
        await worker.gone.wait()
        assert s.moves.index("StopContainer") > s.moves.index("StartContainer")


@with_skipped_time
async def test_a_container_is_not_started_when_its_pod_is_deleted_while_it_is_made(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        made = s.cri.hold("CreateContainer")
        worker = s.start(record())
        await s.cri.reached("CreateContainer")
        worker.stop(StopCause.DELETED, 30)
        made.set()
        await worker.gone.wait()
        assert "StartContainer" not in s.moves


@with_skipped_time
async def test_an_image_is_not_waited_for_when_the_pod_is_deleted(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.hold("PullImage")
        worker = s.start(record())
        await s.cri.reached("PullImage")
        worker.stop(StopCause.DELETED, 30)
        await worker.gone.wait()
        assert "CreateContainer" not in s.moves
