"""A pod on a node that goes down: ended for good, or only until the node is up again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.cri._generated import api_pb2 as pb
from agent.model.pod import Pod
from agent.model.status import Phase
from agent.pods.admission.gate import Verdict
from agent.pods.knowledge import StopCause
from agent.providers.containerd_shutdown import MESSAGE, ContainerdShutdown
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.unit.pods.scene import Scene, record, scene


def shutdown_of(s: Scene) -> ContainerdShutdown:
    return ContainerdShutdown(s.workers, s.machine.gate)


@with_skipped_time
async def test_a_paused_pod_is_down_stays_down_and_runs_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(record(restartPolicy="Never"))
        pods = shutdown_of(s)
        pods.close()
        pods.end("u-1", 30, final=False)
        assert not pods.has_ended("u-1")
        await s.until(lambda: pods.has_ended("u-1"))
        s.time.skip(600)
        await quiet()
        assert worker.status is not None
        assert worker.status.phase is Phase.RUNNING
        assert worker.status.containerStatuses[0].state.terminated is not None
        assert [one.ready for one in s.cri.sandboxes.values()] == [False]
        pods.open()
        await s.until(lambda: s.cri.container("main").state == pb.CONTAINER_RUNNING)
        assert not pods.has_ended("u-1")
        assert len(pods.active()) == 1


@with_skipped_time
async def test_a_pod_that_is_ended_for_good_has_the_kubelets_status(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running()
        pods = shutdown_of(s)
        pods.end("u-1", 30, final=True)
        await s.until(lambda: pods.has_ended("u-1"))
        status = worker.status
        assert status is not None
        assert (status.phase, status.reason, status.message) == (Phase.FAILED, "Terminated", MESSAGE)
        target = status.condition("DisruptionTarget")
        assert target is not None
        assert (target.status, target.reason, target.message) == ("True", "TerminationByKubelet", MESSAGE)
        assert pods.active() == ()
        pods.open()
        await quiet()
        assert worker.status is status


@with_skipped_time
async def test_a_pod_that_is_being_deleted_is_not_held_and_has_less_time(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running()
        worker.stop(StopCause.DELETED, 300)
        pods = shutdown_of(s)
        pods.end("u-1", 1, final=False)
        await worker.gone.wait()
        assert pods.has_ended("u-1")


@with_skipped_time
async def test_a_pod_that_was_not_judged_before_a_pause_is_judged_after_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        asked = s.machine.gate.admit
        judged: list[str] = []

        async def admit(pod: Pod, *, runs: bool) -> Verdict | None:
            judged.append(pod.uid)
            if len(judged) == 1:
                await asyncio.Event().wait()  # the API server does not show the Node
            return await asked(pod, runs=runs)

        s.machine.gate.admit = admit  # type: ignore[method-assign]
        worker = s.start()
        await s.until(lambda: judged)
        pods = shutdown_of(s)
        pods.end("u-1", 30, final=False)
        await s.until(lambda: pods.has_ended("u-1"))
        pods.open()
        await s.until(lambda: worker.status is not None and worker.status.phase is Phase.RUNNING)
        assert judged == ["u-1", "u-1"]
