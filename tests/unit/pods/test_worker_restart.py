"""Restarts in the worker, over a runtime on the real wire: what a policy alone would not start, and what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.cri._generated import api_pb2 as pb
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.unit.pods.scene import container_record, record, scene

LIVENESS = {"exec": {"command": ["check"]}, "periodSeconds": 10, "failureThreshold": 1}


@with_skipped_time
async def test_a_new_image_starts_the_container_anew_under_never(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(record(restartPolicy="Never"))
        changed: dict[str, Any] = {"containers": [{"name": "main", "image": "busybox:2"}]}
        worker.update(record(restartPolicy="Never", **changed))
        await s.until(lambda: s.main().state.running and s.main().image == "busybox:2")
        assert s.main().restartCount == 1
        # No end was told: the API server would not take it back.
        assert not [u for u in s.updates if u.status.containerStatuses[0].state.terminated]
        assert {u.status.phase for u in s.updates[1:]} <= {"Pending", "Running"}


@with_skipped_time
async def test_a_failed_liveness_probe_is_followed_by_a_start_though_the_container_ended_well(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.behaviours["main"].exec_results.append(pb.ExecSyncResponse(exit_code=1))
        main: dict[str, Any] = {"name": "main", "image": "busybox", "livenessProbe": LIVENESS}
        await s.running(record(restartPolicy="OnFailure", containers=[main]))
        await s.until(lambda: s.main().restartCount == 1 and s.main().state.running)
        assert s.phase == "Running"


@with_skipped_time
async def test_a_rule_restarts_all_containers_in_the_same_sandbox(tmp_path: Path) -> None:
    rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}
    main = {"name": "main", "image": "busybox", "restartPolicy": "Never", "restartPolicyRules": [rule]}
    async with scene(tmp_path) as s:
        await s.running(record(restartPolicy="Never", containers=[main, {"name": "other", "image": "busybox"}]))
        s.exit("main", 42)
        await s.until(lambda: s.main().restartCount == 1 and s.main("other").restartCount == 1)
        await s.until(lambda: s.main().state.running and s.main("other").state.running)
        assert s.moves.count("RunPodSandbox") == 1
        assert len(s.cri.containers) == 2
        last = s.main("other").lastState.terminated
        assert last is not None
        assert last.reason == "RestartingAllContainers"


@with_skipped_time
async def test_a_run_that_only_its_log_remembers_is_counted(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        wanted = container_record()
        file = s.machine.log_files.file(wanted.pod, "main", 3)
        file.parent.mkdir(parents=True)
        file.touch()
        await s.running(wanted)
        assert s.main().restartCount == 4
        await quiet()
        assert s.cri.container("main").config.log_path == "main/4.log"
