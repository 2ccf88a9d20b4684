"""A pod that runs is resized in place: what it is given, when it waits, and what its status says of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.model.record import PodRecord
from agent.model.status import PodStatus
from agent.pods.cgroup_tree import CgroupTree
from agent.pods.worker import PodWorker
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.unit.pods.scene import Scene, container_record, record, scene

MIB = 1 << 20


def sized(cpu: str, memory: str, generation: int = 1, **fields: Any) -> PodRecord:
    return container_record({"generation": generation}, resources={"limits": {"cpu": cpu, "memory": memory}}, **fields)


def told(worker: PodWorker) -> dict[str, tuple[str | None, str | None]]:
    """The resize conditions: reason and message by type."""
    assert worker.status is not None
    return {c.type: (c.reason, c.message) for c in worker.status.conditions if "Resize" in c.type}


def limits(status: PodStatus | None) -> Any:
    assert status is not None
    resources = status.containerStatuses[0].resources
    return None if resources is None else resources.limits


async def done(s: Scene, worker: PodWorker, cpu: str) -> None:
    await s.until(lambda: (limits(worker.status) or {}).get("cpu") == cpu and not told(worker))


@with_skipped_time
async def test_a_container_gets_more_without_a_restart(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(sized("1", "64Mi"))
        worker.update(sized("2", "128Mi", 2))
        await done(s, worker, "2")
        container = s.cri.container("main")
        assert container.resources is not None
        assert (container.resources.cpu_quota, container.resources.memory_limit_in_bytes) == (200_000, 128 * MIB)
        assert s.moves.count("CreateContainer") == 1
        assert worker.status is not None
        assert worker.status.containerStatuses[0].allocatedResources == {"cpu": "2", "memory": "128Mi"}
        assert worker.status.observedGeneration == 2
        assert s.events.reasons[-2:] == ["ResizeStarted", "ResizeCompleted"]


@with_skipped_time
async def test_a_container_whose_policy_says_so_is_started_anew(tmp_path: Path) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    async with scene(tmp_path) as s:
        worker = await s.running(sized("1", "64Mi", resizePolicy=policy))
        worker.update(sized("2", "64Mi", 2, resizePolicy=policy))
        await done(s, worker, "2")
        assert s.moves.count("CreateContainer") == 1
        worker.update(sized("1", "128Mi", 3, resizePolicy=policy))
        await done(s, worker, "1")
        assert s.events.messages("Killing") == ["Container main resize requires restart"]
        assert s.cri.container("main").config.linux.resources.memory_limit_in_bytes == 128 * MIB
        assert worker.status is not None
        assert worker.status.containerStatuses[0].restartCount == 1


@with_skipped_time
async def test_more_than_the_node_has_is_infeasible_and_the_pod_stays_as_it_is(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(sized("1", "64Mi"))
        worker.update(sized("100", "64Mi", 2))
        await s.until(lambda: told(worker))
        why = "Node didn't have enough capacity: cpu, requested: 100000, capacity: 4000"
        assert told(worker) == {"PodResizePending": ("Infeasible", why)}
        assert limits(worker.status) == {"cpu": "1", "memory": "64Mi"}
        worker.update(sized("1", "64Mi", 3))
        await s.until(lambda: not told(worker))
        assert not s.cri.called("UpdateContainerResources")


@with_skipped_time
async def test_what_has_no_room_now_waits_for_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(sized("1", "64Mi"))
        busy = {"name": "o", "resources": {"requests": {"cpu": "2"}}}
        taken = record({"uid": "u-2", "name": "other"}, containers=[busy])
        assert await s.machine.gate.admit(taken.pod, runs=False) is None
        worker.update(sized("3", "64Mi", 2))
        await s.until(lambda: told(worker))
        assert told(worker)["PodResizePending"][0] == "Deferred"
        s.machine.gate.left("u-2")
        s.skip(3)
        await done(s, worker, "3")


@with_skipped_time
async def test_a_memory_limit_below_what_is_in_use_is_not_set(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(sized("1", "64Mi"))
        s.cri.container("main").memory_used = 50 * MIB
        worker.update(sized("1", "32Mi", 2))
        await s.until(lambda: told(worker).get("PodResizeInProgress", ("", ""))[0] == "Error")
        assert "memory limit (33554432) below" in str(told(worker)["PodResizeInProgress"][1])
        assert not s.cri.called("UpdateContainerResources")
        s.cri.container("main").memory_used = 10 * MIB
        s.skip(3)
        await s.until(lambda: not told(worker))
        assert limits(worker.status) == {"cpu": "1", "memory": "32Mi"}


@with_skipped_time
async def test_a_resize_that_waited_when_the_agent_died_goes_on(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(sized("1", "64Mi"))
        before = worker.status
        await s.killed_agent()
        again = s.start(sized("2", "64Mi", 2), before)
        await done(s, again, "2")
        assert s.moves.count("CreateContainer") == 1


def whole(cpu: str, generation: int) -> PodRecord:
    size = {"limits": {"cpu": cpu, "memory": "64Mi"}, "requests": {"cpu": "1m"}}
    return record({"generation": generation}, resources=size, overhead={"cpu": "250m"})


@with_skipped_time
async def test_a_resize_of_the_pod_as_a_whole_that_a_restart_interrupts_is_performed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(whole("1", 1))
        with monkeypatch.context() as broken:
            broken.setattr(CgroupTree, "widen_pod", unwritable)
            worker.update(whole("2", 2))
            await s.until(lambda: told(worker).get("PodResizeInProgress", ("", ""))[0] == "Error")
        before = worker.status
        await s.killed_agent()
        assert s.cri.container("main").resources is None
        again = s.start(whole("2", 2), before)
        await s.until(lambda: s.cri.container("main").resources is not None and not told(again))
        resources = s.cri.container("main").resources
        assert resources is not None
        assert resources.cpu_quota == 200_000

        # What was done is not done again.
        after, moves = again.status, len(s.events.messages("ResizeCompleted"))
        await s.killed_agent()
        last = s.start(whole("2", 2), after)
        await s.until(lambda: last.status is not None)
        await quiet()
        assert len(s.events.messages("ResizeCompleted")) == moves == 1


def unwritable(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@with_skipped_time
async def test_limits_of_the_pod_as_a_whole_reach_who_has_none(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(whole("1", 1))
        worker.update(whole("2", 2))
        await s.until(lambda: s.cri.container("main").resources is not None and not told(worker))
        resources = s.cri.container("main").resources
        assert resources is not None
        assert resources.cpu_quota == 200_000


@with_skipped_time
async def test_what_is_told_of_the_pod_as_a_whole_is_what_it_has_not_what_it_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole(memory: str, generation: int) -> PodRecord:
        return record({"generation": generation}, resources={"limits": {"cpu": "1", "memory": memory}})

    def memory(worker: PodWorker) -> object:
        assert worker.status is not None
        assert worker.status.resources is not None
        return (worker.status.resources.limits or {})["memory"]

    used = [50 * MIB]
    monkeypatch.setattr(CgroupTree, "memory", lambda *_: (used[0], 64 * MIB))
    async with scene(tmp_path) as s:
        worker = await s.running(whole("64Mi", 1))
        worker.update(whole("32Mi", 2))
        await s.until(lambda: told(worker).get("PodResizeInProgress", ("", ""))[0] == "Error")
        assert "pod memory limit (33554432) below current usage" in str(told(worker)["PodResizeInProgress"][1])
        assert memory(worker) == "64Mi"
        assert worker.status is not None
        assert (worker.status.allocatedResources or {})["memory"] == "32Mi"
        used[0] = 10 * MIB
        s.skip(3)
        await s.until(lambda: not told(worker))
        assert memory(worker) == "32Mi"


@with_skipped_time
async def test_a_pod_whose_page_cache_fills_its_limit_gets_more_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CgroupTree, "memory", lambda *_: (64 * MIB, 64 * MIB))
    async with scene(tmp_path) as s:
        worker = await s.running(sized("1", "64Mi"))
        worker.update(sized("2", "64Mi", 2))
        await done(s, worker, "2")


@with_skipped_time
async def test_an_init_container_gets_more_while_it_runs(tmp_path: Path) -> None:
    def small(cpu: str, generation: int) -> PodRecord:
        first = {"name": "first", "image": "busybox", "resources": {"limits": {"cpu": cpu, "memory": "64Mi"}}}
        return record({"generation": generation}, initContainers=[first])

    async with scene(tmp_path) as s:
        worker = s.start(small("1", 1))
        await s.until(lambda: s.is_running("first"))
        worker.update(small("2", 2))
        await s.until(lambda: s.cri.container("first").resources is not None and not told(worker))
        resources = s.cri.container("first").resources
        assert resources is not None
        assert resources.cpu_quota == 200_000
        assert s.moves.count("CreateContainer") == 1


@with_skipped_time
async def test_a_runtime_that_refuses_is_asked_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(sized("1", "64Mi"))
        s.cri.fail("UpdateContainerResources", grpc.StatusCode.UNKNOWN)
        worker.update(sized("2", "64Mi", 2))
        await s.until(lambda: told(worker).get("PodResizeInProgress", ("", ""))[0] == "Error")
        s.skip(3)
        await done(s, worker, "2")


@with_skipped_time
async def test_other_changes_of_the_pod_resize_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(sized("1", "64Mi"))
        worker.update(
            container_record({"labels": {"a": "b"}}, resources={"limits": {"cpu": "1000m", "memory": "64Mi"}})
        )
        await quiet()
        assert not s.cri.called("UpdateContainerResources")
        assert not told(worker)
