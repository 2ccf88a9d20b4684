"""A pod's life in its worker, over a runtime on the real wire: starts, restarts, bugs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.cri._generated import api_pb2 as pb
from agent.model.status import Phase
from agent.pods.knowledge import StopCause
from agent.pods.plan import AFTER_RUSH_S
from agent.pods.reporting import RUSH_SETTLE_S
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.unit.pods.scene import container_record, record, scene

CONFIG_VOLUME: dict[str, Any] = {"name": "config", "configMap": {"name": "settings"}}
DEBUG: dict[str, Any] = {"name": "debug", "image": "busybox"}
LIVENESS = {"exec": {"command": ["check"]}, "periodSeconds": 10, "failureThreshold": 1}


# ------------------------------------------------------------ the start


@with_skipped_time
async def test_a_pod_is_started_with_one_call_of_each_kind_in_order(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.running()
        assert s.moves == ["RunPodSandbox", "PullImage", "CreateContainer", "StartContainer"]
        assert s.events.reasons == ["Pulling", "Pulled", "Created", "Started"]
        status = s.updates[-1].status
        assert (status.podIP, s.main().ready, s.main().restartCount) == ("10.88.0.1", True, 0)


@with_skipped_time
async def test_a_fast_start_asks_for_time_until_it_is_running(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.running()
        assert all(update.settle_s > 0 for update in s.updates[:-1])
        assert s.updates[-1].settle_s == 0


@with_skipped_time
async def test_a_start_in_a_rush_asks_for_more_time(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        async with s.machine.starts.new:
            await s.running()
        assert {update.settle_s for update in s.updates[:-1]} == {RUSH_SETTLE_S}
        assert s.updates[-1].settle_s == 0


@with_skipped_time
async def test_volumes_are_set_up_while_the_sandbox_is_made(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        made = s.cri.hold("RunPodSandbox")
        s.objects.put("configmaps", "settings", data={"a": "1"})
        s.start(record(volumes=[CONFIG_VOLUME]))
        await s.cri.reached("RunPodSandbox")
        await s.until((s.volume("configmap", "config") / "a").exists)
        made.set()
        await s.until(lambda: s.phase == "Running")


@with_skipped_time
async def test_init_containers_end_one_by_one_before_the_main_ones_start(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.start(record(initContainers=[{"name": "first", "image": "busybox"}, {"name": "second", "image": "busybox"}]))
        for name in ("first", "second"):
            await s.until(lambda: s.is_running(name))  # noqa: B023
            s.exit(name)
        await s.until(lambda: s.phase == "Running")
        started = [request.config.metadata.name for request in s.cri.called("CreateContainer")]
        assert started == ["first", "second", "main"]


@with_skipped_time
async def test_a_refused_pod_makes_nothing_and_says_which_field(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.start(record(volumes=[{"name": "x", "iscsi": {"lun": 0}}]))
        await s.until(lambda: s.updates)
        await quiet()
        assert (s.moves, s.phase) == ([], "Pending")
        assert "iscsi" in s.updates[-1].status.message
        assert s.events.reasons == ["UnsupportedField"]


@with_skipped_time
async def test_a_refused_pod_can_be_deleted(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = s.start(record(volumes=[{"name": "x", "iscsi": {"lun": 0}}]))
        await s.until(lambda: s.updates)
        worker.stop(StopCause.DELETED, 30)
        await worker.gone.wait()
        assert s.gone
        assert s.moves == []


@with_skipped_time
async def test_a_sysctl_that_is_not_safe_is_refused_by_its_own_reason(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.start(record(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}))
        await s.until(lambda: s.updates)
        status = s.updates[-1].status
        assert (status.phase, status.reason) == (Phase.FAILED, "SysctlForbidden")
        await quiet()
        assert s.moves == []


@with_skipped_time
async def test_a_pod_for_another_operating_system_fails(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.start(record(os={"name": "windows"}))
        await s.until(lambda: s.updates)
        status = s.updates[-1].status
        assert (status.phase, status.reason) == (Phase.FAILED, "PodOSNotSupported")
        assert s.moves == []


@with_skipped_time
async def test_a_pod_that_runs_already_was_admitted_before(tmp_path: Path) -> None:
    volumes = [{"name": "x", "iscsi": {"lun": 0}}]
    async with scene(tmp_path) as s:
        await s.running()
        await s.killed_agent()
        s.updates.clear()
        s.start(record(status={"phase": "Running"}, volumes=volumes))
        await s.until(lambda: s.updates)
        await quiet()
        assert s.phase == "Running"
        assert "UnsupportedField" not in s.events.reasons


@with_skipped_time
async def test_what_is_added_to_a_running_pod_and_not_done_is_said_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(record({"generation": 1}))
        debugged = record({"generation": 2}, ephemeralContainers=[DEBUG | {"resources": {"claims": [{"name": "x"}]}}])
        worker.update(debugged)
        worker.update(debugged)
        await quiet()
        assert s.phase == "Running"
        (said,) = s.events.messages("UnsupportedField")
        assert "ephemeralContainers[0].resources.claims" in said
        (told,) = s.updates[-1].status.ephemeralContainerStatuses
        assert told.state.waiting is not None
        assert told.state.waiting.reason == "UnsupportedField"
        assert len(s.cri.containers) == 1


# ------------------------------------------------------------ restarts


@with_skipped_time
async def test_a_crash_is_restarted_at_once_and_the_next_after_ten_seconds(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.running()
        s.exit("main", 1)
        await s.until(lambda: s.main().restartCount == 1 and s.main().state.running)
        s.exit("main", 1)
        await s.until(lambda: s.waits() == "CrashLoopBackOff")
        assert s.events.reasons.count("BackOff") == 1
        s.skip(8)
        await quiet()
        assert s.waits() == "CrashLoopBackOff"
        s.skip(3)
        await s.until(lambda: s.main().restartCount == 2 and s.main().state.running)
        last = s.main().lastState.terminated
        assert last is not None
        assert last.exitCode == 1


@with_skipped_time
async def test_a_job_that_succeeded_takes_its_network_and_volumes_down_and_keeps_its_container(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.objects.put("configmaps", "settings", data={"a": "1"})
        await s.running(record(restartPolicy="Never", volumes=[CONFIG_VOLUME]))
        s.exit("main", 0)
        await s.until(lambda: s.phase == "Succeeded" and not any(x.ready for x in s.cri.sandboxes.values()))
        await s.until(lambda: not (s.root / "pods/u-1").exists())
        await quiet()
        assert (len(s.cri.containers), s.gone) == (1, False)


@with_skipped_time
async def test_a_failed_liveness_probe_kills_and_restarts(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.behaviours["main"].exec_results.append(pb.ExecSyncResponse(exit_code=1, stdout=b"dead"))
        await s.running(container_record(livenessProbe=LIVENESS))
        await s.until(lambda: s.main().restartCount == 1 and s.main().state.running)
        assert s.moves.count("StopContainer") == 1
        assert "failed liveness probe" in s.events.messages("Killing")[0]
        # It has not crashed: the second time too it is started at once. Then it crashes, and waits.
        s.cri.behaviours["main"].exec_results.append(pb.ExecSyncResponse(exit_code=1))
        s.skip(10)
        await s.until(lambda: s.main().restartCount == 2 and s.main().state.running)
        s.exit("main", 1)
        await s.until(lambda: s.waits() == "CrashLoopBackOff")


@with_skipped_time
async def test_a_container_that_waits_for_its_restart_is_not_probed(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.running(container_record(livenessProbe={**LIVENESS, "periodSeconds": 1}))
        s.exit("main", 1)
        await s.until(lambda: s.main().restartCount == 1 and s.main().state.running)
        s.exit("main", 1)
        await s.until(lambda: s.waits() == "CrashLoopBackOff")
        probed = len(s.cri.called("ExecSync"))
        for _ in range(3):
            s.skip(2)
            await quiet()
        assert len(s.cri.called("ExecSync")) == probed


@with_skipped_time
async def test_the_liveness_of_an_ending_pod_is_nobodys_business(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.behaviours["main"].obeys_stop = False
        worker = await s.running(container_record(livenessProbe={**LIVENESS, "periodSeconds": 1}))
        worker.stop(StopCause.DELETED, 30)
        await s.cri.reached("StopContainer")
        await quiet()
        probed = len(s.cri.called("ExecSync"))
        for _ in range(3):
            s.skip(2)
            await quiet()
        assert len(s.cri.called("ExecSync")) == probed
        s.skip(30)
        await worker.gone.wait()


@with_skipped_time
async def test_readiness_follows_its_probe(tmp_path: Path) -> None:
    probe = {"exec": {"command": ["check"]}, "periodSeconds": 5, "failureThreshold": 1}
    async with scene(tmp_path) as s:
        results = s.cri.behaviours["main"].exec_results
        results.append(pb.ExecSyncResponse(exit_code=1))
        await s.running(container_record(readinessProbe=probe))
        assert not s.main().ready
        s.skip(5)
        await s.until(lambda: s.main().ready)
        results.append(pb.ExecSyncResponse(exit_code=1))
        s.skip(5)
        await s.until(lambda: not s.main().ready)
        assert s.moves.count("StopContainer") == 0


@pytest.mark.parametrize(
    ("ports", "moves"),
    [
        ([], ["RunPodSandbox", "StopPodSandbox"]),
        ([{"containerPort": 80, "hostPort": 8080}], ["StopPodSandbox", "RunPodSandbox"]),
    ],
)
@with_skipped_time
async def test_the_network_of_a_dead_sandbox_goes_after_the_start_but_for_ports_of_the_host(
    tmp_path: Path, ports: list[dict[str, Any]], moves: list[str]
) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(container_record(ports=ports))
        before = len(s.moves)
        (old,) = s.cri.sandboxes
        s.cri.lose_sandbox(old)
        async with s.machine.starts.new:
            worker.wake()
            await s.until(lambda: s.main().ready and s.main().restartCount == 1)
        s.skip(AFTER_RUSH_S)
        await s.until(lambda: "StopPodSandbox" in s.moves)
        assert [move for move in s.moves[before:] if move in moves] == moves
        assert s.updates[-1].settle_s == 0, "that it runs is told at once"


@with_skipped_time
async def test_a_lost_sandbox_is_replaced_by_the_next_attempt(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running()
        (old,) = s.cri.sandboxes
        s.cri.lose_sandbox(old)
        worker.wake()
        await s.until(lambda: s.main().state.running and s.main().restartCount == 1)
        new = [x for x in s.cri.sandboxes.values() if x.ready]
        assert [x.config.metadata.attempt for x in new] == [1]
        assert "SandboxChanged" in s.events.reasons


@with_skipped_time
async def test_a_new_image_in_the_spec_restarts_the_container_with_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running()
        worker.update(container_record(image="busybox:2"))
        await s.until(lambda: s.main().state.running and s.main().image == "busybox:2")
        assert s.moves.count("StopContainer") == 1


@with_skipped_time
async def test_our_own_status_that_comes_back_reads_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running()
        await quiet()
        before = len(s.cri.calls)
        worker.update(record(status={"phase": "Running"}))
        await quiet()
        assert len(s.cri.calls) == before


# ------------------------------------------------------------ bugs


@with_skipped_time
async def test_a_bug_in_a_worker_ends_its_owner(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as ended:
        await start_with_a_bug(tmp_path)
    assert ended.group_contains(ValueError, match="a bug")


async def start_with_a_bug(folder: Path) -> None:
    async with scene(folder) as s:
        s.objects.error = ValueError("a bug")
        s.start(record(volumes=[CONFIG_VOLUME]))
        await asyncio.sleep(5)
