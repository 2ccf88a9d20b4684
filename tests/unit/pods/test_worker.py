"""A pod's life in its worker, over a runtime on the real wire: from the first look to the last trace."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from loguru import logger

from agent.cri._generated import api_pb2 as pb
from agent.errors import Retryable
from agent.model.record import PodRecord
from agent.model.status import Phase
from agent.pods.knowledge import StopCause
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.unit.pods.scene import Scene, container_record, record, scene

AWAY = grpc.StatusCode.UNAVAILABLE
CONFIG_VOLUME: dict[str, Any] = {"name": "config", "configMap": {"name": "settings"}}
TOKEN_VOLUME: dict[str, Any] = {
    "name": "token",
    "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]},
}
LIVENESS = {"exec": {"command": ["check"]}, "periodSeconds": 10, "failureThreshold": 1}


def volume(s: Scene, kind: str, name: str) -> Path:
    return s.root / "pods/u-1/volumes" / f"kubernetes.io~{kind}" / name


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
async def test_volumes_are_set_up_while_the_sandbox_is_made(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        made = s.cri.hold("RunPodSandbox")
        s.objects.put("configmaps", "settings", data={"a": "1"})
        s.start(record(volumes=[CONFIG_VOLUME]))
        await s.cri.reached("RunPodSandbox")
        await s.until((volume(s, "configmap", "config") / "a").exists)
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
        s.start(record(volumes=[{"name": "x", "nfs": {"server": "s", "path": "/"}}]))
        await s.until(lambda: s.updates)
        await quiet()
        assert (s.moves, s.phase) == ([], "Pending")
        assert "nfs" in s.updates[-1].status.message
        assert s.events.reasons == ["UnsupportedField"]


@with_skipped_time
async def test_a_refused_pod_can_be_deleted(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = s.start(record(volumes=[{"name": "x", "nfs": {"server": "s", "path": "/"}}]))
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
        assert s.updates[-1].status.reason == "SysctlForbidden"
        await quiet()
        assert s.moves == []


@with_skipped_time
async def test_a_pod_that_runs_already_was_admitted_before(tmp_path: Path) -> None:
    volumes = [{"name": "x", "nfs": {"server": "s", "path": "/"}}]
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
        debugged = record({"generation": 2}, ephemeralContainers=[{"name": "debug", "image": "busybox"}])
        worker.update(debugged)
        worker.update(debugged)
        await quiet()
        assert s.phase == "Running"
        (said,) = s.events.messages("UnsupportedField")
        assert "ephemeralContainers" in said


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
        # The second time it has to wait.
        s.cri.behaviours["main"].exec_results.append(pb.ExecSyncResponse(exit_code=1))
        s.skip(10)
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


# ------------------------------------------------------------ the end


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

    def vanished(*_: object) -> int:
        if broken.pop() if broken else False:
            raise FileNotFoundError("the cgroup's folder went while it was read")
        return 0

    monkeypatch.setattr("agent.pods.perform.end_leftovers", vanished)
    async with scene(tmp_path) as s:
        worker = await s.running()
        worker.stop(StopCause.DELETED, 30)
        await s.until(lambda: s.gone and not broken)
        await quiet()
        s.skip(1)
        await worker.gone.wait()


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


# ------------------------------------------------------------ what it refers to


@with_skipped_time
async def test_a_volumes_missing_config_map_is_waited_for_and_its_coming_starts_the_pod_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = s.start(record(volumes=[CONFIG_VOLUME]))
        await fail_for_long(s)
        assert s.events.messages("FailedMount")
        assert "CreateContainer" not in s.moves
        s.objects.put("configmaps", "settings", data={"a": "1"})
        worker.objects_changed()
        await s.until(lambda: s.phase == "Running")


async def fail_for_long(s: Scene) -> None:
    """Until the next try is eight seconds away."""
    await s.until(lambda: s.objects.asked)
    for wait in (1, 2, 4):
        await quiet()
        before = s.objects.asked
        s.skip(wait)
        await s.until(lambda: s.objects.asked > before)  # noqa: B023
    await quiet()


def with_env() -> PodRecord:
    source = {"configMapKeyRef": {"name": "settings", "key": "a"}}
    return container_record(env=[{"name": "A", "valueFrom": source}])


@with_skipped_time
async def test_a_variables_missing_config_map_is_waited_for_and_its_coming_starts_the_pod_at_once(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as s:
        worker = s.start(with_env())
        await s.until(lambda: s.waits() == "CreateContainerConfigError")
        await fail_for_long(s)
        s.objects.put("configmaps", "settings", data={"a": "1"})
        worker.objects_changed()
        await s.until(lambda: s.phase == "Running")
        (request,) = s.cri.called("CreateContainer")
        assert ("A", b"1") in [(e.key, e.value) for e in request.config.envs]


@with_skipped_time
async def test_a_missing_config_map_is_looked_for_again_even_if_nobody_tells(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.start(with_env())
        await s.until(lambda: s.waits() == "CreateContainerConfigError")
        s.objects.put("configmaps", "settings", data={"a": "1"})
        s.skip(1)
        await s.until(lambda: s.phase == "Running")


@with_skipped_time
async def test_a_changed_config_map_is_written_into_the_running_pods_volume(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.objects.put("configmaps", "settings", data={"a": "1"})
        worker = await s.running(record(volumes=[CONFIG_VOLUME]))
        s.objects.put("configmaps", "settings", data={"a": "2"})
        worker.objects_changed()
        file = volume(s, "configmap", "config") / "a"
        await s.until(lambda: file.read_text() == "2")
        assert s.moves.count("CreateContainer") == 1


@with_skipped_time
async def test_changed_labels_reach_a_downward_volume(tmp_path: Path) -> None:
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    volumes = [{"name": "info", "downwardAPI": {"items": items}}]
    async with scene(tmp_path) as s:
        worker = await s.running(record({"labels": {"app": "web"}}, volumes=volumes))
        worker.update(record({"labels": {"app": "shop"}}, volumes=volumes))
        file = volume(s, "downward-api", "info") / "labels"
        await s.until(lambda: file.read_text().strip() == 'app="shop"')


@with_skipped_time
async def test_a_token_is_written_anew_when_most_of_its_life_is_over(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.running(record(volumes=[TOKEN_VOLUME]))
        file = volume(s, "projected", "token") / "token"
        assert file.read_text() == "token-1"
        s.skip(0.8 * 3600 - 10)
        await quiet()
        assert file.read_text() == "token-1"
        s.skip(15)
        await s.until(lambda: file.read_text() == "token-2")


@with_skipped_time
async def test_a_clock_that_was_years_behind_does_not_keep_an_old_token_for_years(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.tokens.life_s = 50 * 365 * 86400  # as an expiry of today reads in 1976
        await s.running(record(volumes=[TOKEN_VOLUME]))
        s.skip(3600)
        await s.until(lambda: s.tokens.issued == 2)


@with_skipped_time
async def test_a_token_that_cannot_be_renewed_leaves_the_old_one_and_is_tried_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.objects.put("configmaps", "settings", data={"a": "1"})
        await s.running(record(volumes=[TOKEN_VOLUME, CONFIG_VOLUME]))
        s.objects.error = Retryable("the API server is away")
        s.skip(0.8 * 3600 + 1)
        await s.until(lambda: s.events.messages("FailedMount"))
        file = volume(s, "projected", "token") / "token"
        assert file.read_text() == "token-1"
        s.objects.error = None
        s.skip(1)
        await s.until(lambda: file.read_text() != "token-1")


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
