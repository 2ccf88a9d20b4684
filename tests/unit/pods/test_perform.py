"""Actions become effects: what fails is in the pod's status and events, and is tried again in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from msgspec.structs import replace

from agent.cri._generated import api_pb2 as pb
from agent.errors import Retryable
from agent.pods.knowledge import StopCause
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.unit.pods.scene import NODE, container_record, record, scene

UNKNOWN = grpc.StatusCode.UNKNOWN
MEMORY: dict[str, Any] = {"name": "cache", "emptyDir": {"medium": "Memory"}}


# ------------------------------------------------------------ sandboxes


@with_skipped_time
async def test_a_sandbox_whose_name_is_still_reserved_is_made_with_the_next_attempt(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        details = 'failed to reserve sandbox name "web_shop_u-1_0": name "web_shop_u-1_0" is reserved for "abc"'
        s.cri.fail("RunPodSandbox", UNKNOWN, details)
        s.start()
        await s.until(lambda: s.events.messages("FailedCreatePodSandBox"))
        await quiet()
        s.skip(1)
        await s.until(lambda: s.phase == "Running")
        assert [request.config.metadata.attempt for request in s.cri.called("RunPodSandbox")] == [0, 1]
        assert s.main().restartCount == 0


@with_skipped_time
async def test_a_pod_gets_the_servers_that_the_node_has_when_its_sandbox_is_made(tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"
    async with scene(tmp_path) as s:
        s.machine.resolv_conf = resolver
        resolver.write_text("nameserver 192.0.2.53\nsearch example.org\n")
        worker = s.start(record(dnsPolicy="Default"))
        await s.until(lambda: s.phase == "Running")
        resolver.write_text("nameserver 192.0.2.54\n")
        s.cri.lose_sandbox(next(iter(s.cri.sandboxes)))
        worker.wake()
        await s.cri.reached("RunPodSandbox", 2)
        first, second = (request.config.dns_config for request in s.cri.called("RunPodSandbox"))
        assert (first.servers, first.searches) == (["192.0.2.53"], ["example.org"])
        assert (second.servers, second.searches) == (["192.0.2.54"], [])


@with_skipped_time
async def test_a_sandbox_that_cannot_be_made_is_tried_again_in_growing_steps(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.fail("RunPodSandbox", UNKNOWN, "no more addresses", times=2)
        s.start()
        for tries, wait in ((1, 1), (2, 2)):
            await s.cri.reached("RunPodSandbox", tries)
            await quiet()
            assert s.moves.count("RunPodSandbox") == tries
            s.skip(wait)
        await s.until(lambda: s.phase == "Running")
        assert s.events.messages("FailedCreatePodSandBox") == ["Failed to create pod sandbox: no more addresses"] * 2


@with_skipped_time
async def test_a_sandbox_that_died_before_its_first_container_is_removed(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        pulled = s.cri.hold("PullImage")
        s.start()
        await s.cri.reached("PullImage")
        (dead,) = s.cri.sandboxes
        s.cri.lose_sandbox(dead)
        pulled.set()
        await s.cri.reached("CreateContainer")
        await quiet()
        s.skip(1)
        await s.until(lambda: s.phase == "Running")
        await s.until(lambda: dead not in s.cri.sandboxes)
        assert s.main().restartCount == 0
        assert "SandboxChanged" in s.events.reasons


@with_skipped_time
async def test_a_sandbox_that_is_gone_when_it_is_stopped_was_stopped(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running()
        s.cri.fail("StopPodSandbox", grpc.StatusCode.NOT_FOUND, "no such sandbox")
        s.cri.fail("RemovePodSandbox", grpc.StatusCode.NOT_FOUND, "no such sandbox")
        (sandbox,) = s.cri.sandboxes.values()
        worker.stop(StopCause.DELETED, 30)
        await s.cri.reached("StopPodSandbox")
        sandbox.ready = False
        await worker.gone.wait()
        assert s.gone


@with_skipped_time
async def test_only_our_own_sandboxes_are_ended(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        foreign = pb.PodSandboxConfig(metadata=pb.PodSandboxMetadata(name="web", namespace="shop", uid="u-1"))
        kept = await s.machine.runtime.run_pod_sandbox(foreign)
        foreign.metadata.attempt = 1
        foreign.labels["io.kubernetes.pod.uid"] = "u-1"
        kept_too = await s.machine.runtime.run_pod_sandbox(foreign)
        worker = s.make()
        worker.stop(StopCause.DELETED, 0)
        await s.run(worker)
        assert set(s.cri.sandboxes) == {kept, kept_too}


@with_skipped_time
async def test_a_disk_that_is_full_of_logs_waits_and_says_so(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        (tmp_path / "pods-logs").write_text("not a folder")
        s.start()
        await s.until(lambda: s.events.messages("FailedCreatePodSandBox"))
        assert "cannot make the log folder" in s.events.messages("FailedCreatePodSandBox")[0]
        (tmp_path / "pods-logs").unlink()
        s.skip(1)
        await s.until(lambda: s.phase == "Running")


# ------------------------------------------------------------ starts


@with_skipped_time
async def test_a_container_that_cannot_be_made_waits_with_the_runtimes_words(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.fail("CreateContainer", UNKNOWN, "no such device", times=3)
        s.start()
        for tries, wait in ((1, 1), (2, 2), (3, 4)):
            await s.cri.reached("CreateContainer", tries)
            await s.until(lambda: s.waits() == "CreateContainerError")
            await quiet()
            assert s.moves.count("CreateContainer") == tries
            waiting = s.main().state.waiting
            assert waiting is not None
            assert waiting.message == "no such device"
            s.skip(wait)
        await s.until(lambda: s.phase == "Running")
        assert s.events.messages("Failed") == ["Error: no such device"]
        assert s.main().restartCount == 0


@with_skipped_time
async def test_a_container_that_cannot_be_run_and_is_left_as_made_is_started_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.fail("StartContainer", UNKNOWN, "exec: no such file")
        s.start()
        await s.until(lambda: s.waits() == "RunContainerError")
        await quiet()
        s.skip(1)
        await s.until(lambda: s.phase == "Running")
        assert len(s.cri.containers) == 1


@with_skipped_time
async def test_a_container_that_cannot_be_run_and_is_left_as_ended_is_made_anew(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.fail("StartContainer", UNKNOWN, "exec: no such file")
        s.start()
        await s.cri.reached("StartContainer")
        s.cri.record_exit(s.cri.container("main").id, 128, "StartError", message="exec: no such file")
        await s.until(lambda: s.waits() == "RunContainerError")
        s.skip(1)
        await s.until(lambda: s.main().state.running)
        last = s.main().lastState.terminated
        assert last is not None
        assert (last.reason, last.exitCode, s.main().restartCount) == ("StartError", 128, 1)


@with_skipped_time
async def test_one_container_that_cannot_be_made_does_not_hold_the_others_back(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.fail("CreateContainer", UNKNOWN, "no such device")
        s.start(record(containers=[{"name": "main", "image": "busybox"}, {"name": "side", "image": "busybox"}]))
        await s.until(lambda: s.updates and s.main("side").state.running)
        assert s.waits() == "CreateContainerError"


@with_skipped_time
async def test_a_pod_that_cannot_be_translated_any_more_waits_and_does_not_spin(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.running(record(setHostnameAsFQDN=True, subdomain="sub"))
        s.machine.translate = replace(s.machine.translate, cluster_domain=f"{'x' * 60}.example")
        s.exit("main", 1)
        await s.until(lambda: s.waits() != "" and s.events.messages("Failed"))
        await quiet()
        calls = len(s.cri.calls)
        await quiet()
        assert len(s.cri.calls) == calls
        assert len(s.events.messages("Failed")) == 1


@with_skipped_time
async def test_a_post_start_hook_that_fails_kills_the_container(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.behaviours["main"].exec_results.append(pb.ExecSyncResponse(exit_code=3))
        s.start(container_record(lifecycle={"postStart": {"exec": {"command": ["join"]}}}))
        await s.until(lambda: s.updates and s.main().restartCount == 1 and s.main().ready)
        assert s.moves.count("StopContainer") == 1
        assert "FailedPostStartHook" in s.events.reasons
        assert s.events.messages("Killing") == ["FailedPostStartHook"]


@with_skipped_time
async def test_a_container_is_not_ready_while_its_post_start_hook_runs(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        joined = s.cri.hold("ExecSync")
        s.start(container_record(lifecycle={"postStart": {"exec": {"command": ["join"]}}}))
        await s.cri.reached("ExecSync")
        await quiet()
        assert not s.main().ready
        joined.set()
        await s.until(lambda: s.main().ready)


@with_skipped_time
async def test_a_sub_path_that_leads_outside_says_so(tmp_path: Path) -> None:
    mounts = [{"name": "cache", "mountPath": "/c", "subPath": "out"}]
    async with scene(tmp_path) as s:
        made = s.cri.hold("RunPodSandbox")
        s.start(
            record(
                volumes=[{"name": "cache", "emptyDir": {}}],
                containers=[{"name": "main", "image": "busybox", "volumeMounts": mounts}],
            )
        )
        folder = s.root / "pods/u-1/volumes/kubernetes.io~empty-dir/cache"
        await s.until(folder.is_dir)
        (folder / "out").symlink_to("/")
        made.set()
        await s.until(lambda: s.waits() == "CreateContainerConfigError")
        assert "CreateContainer" not in s.moves


@with_skipped_time
async def test_files_of_a_container_that_cannot_be_written_are_tried_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        made = s.cri.hold("RunPodSandbox")
        s.start(record())
        await s.cri.reached("RunPodSandbox")
        block = s.root / "pods/u-1"
        block.parent.mkdir(parents=True, exist_ok=True)
        block.write_text("not a folder")
        made.set()
        await s.until(lambda: s.waits() == "CreateContainerConfigError")
        block.unlink()
        s.skip(1)
        await s.until(lambda: s.phase == "Running")


@with_skipped_time
async def test_a_restart_that_cannot_have_what_it_refers_to_waits_for_it(tmp_path: Path) -> None:
    source = {"configMapRef": {"name": "settings"}}
    async with scene(tmp_path) as s:
        s.objects.put("configmaps", "settings", data={"A": "1"})
        await s.running(container_record(envFrom=[source]))
        s.objects.error = Retryable("neither the API server nor the record has it")
        s.exit("main", 1)
        await s.until(lambda: s.waits() == "CreateContainerConfigError")
        s.objects.error = None
        s.objects.put("configmaps", "settings", data={"A": "2"})
        s.skip(10)
        await s.until(lambda: s.main().restartCount == 1 and s.main().state.running)
        assert ("A", b"2") in [(e.key, e.value) for e in s.cri.called("CreateContainer")[-1].config.envs]


@with_skipped_time
async def test_a_link_to_a_log_that_cannot_be_made_holds_nobody_up(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        (tmp_path / "links").write_text("not a folder")
        await s.running()
        assert s.main().ready


@with_skipped_time
async def test_the_files_of_a_container_are_there_before_it_is_made(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        made = s.cri.hold("CreateContainer")
        s.start()
        await s.cri.reached("CreateContainer")
        (request,) = s.cri.called("CreateContainer")
        mounts = {mount.container_path: Path(mount.host_path) for mount in request.config.mounts}
        assert "10.88.0.1\tweb" in mounts["/etc/hosts"].read_text()
        assert mounts["/dev/termination-log"].stat().st_mode & 0o777 == 0o666
        assert (tmp_path / "pods-logs/shop_web_u-1/main").is_dir()
        assert request.config.labels["io.edgelet.node"] == NODE
        made.set()


@with_skipped_time
async def test_no_more_is_made_at_once_than_allowed(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        made = s.cri.hold("RunPodSandbox")
        for number in range(6):
            s.start(record({"name": f"web-{number}", "uid": f"u-{number}"}))
        await s.cri.reached("RunPodSandbox", 4)
        await quiet()
        assert s.moves.count("RunPodSandbox") == 4
        made.set()
        await s.cri.reached("StartContainer", 6)


# ------------------------------------------------------------ ends


@with_skipped_time
async def test_volumes_that_are_busy_are_unmounted_when_they_can_be(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running(record(volumes=[MEMORY]))
        (point,) = s.mounts.tmpfs_at
        s.mounts.busy.add(point)
        worker.stop(StopCause.DELETED, 30)
        await s.until(lambda: s.events.messages("FailedUnmount"))
        assert not s.gone
        await quiet()
        s.mounts.busy.clear()
        s.skip(1)
        await worker.gone.wait()
        assert (s.mounts.tmpfs_at, s.gone) == ({}, True)


@with_skipped_time
async def test_what_hung_mounted_from_before_a_restart_is_taken_down_too(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.running(record(volumes=[MEMORY]))
        await s.killed_agent()
        worker = s.make(record(volumes=[MEMORY]))
        worker.stop(StopCause.DELETED, 30)
        await s.run(worker)
        assert s.mounts.tmpfs_at == {}
        assert not (s.root / "pods/u-1").exists()


@with_skipped_time
async def test_a_container_and_the_one_before_it_stay_and_older_ones_go_with_their_logs(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.running()
        logs = tmp_path / "pods-logs/shop_web_u-1/main"
        for attempt in range(3):
            await s.until(lambda: s.main().restartCount == attempt and s.main().state.running)  # noqa: B023
            (logs / f"{attempt}.log").write_text("")
            s.exit("main", 1)
            await s.until(lambda: s.main().state.running is None or s.main().restartCount > attempt)  # noqa: B023
            s.skip(41)
        await s.until(lambda: s.main().restartCount == 3 and len(s.cri.containers) == 2)
        await s.until(lambda: [file.name for file in logs.iterdir()] == ["2.log"])
        assert len(list((tmp_path / "links").iterdir())) == 2


@with_skipped_time
async def test_a_volume_that_cannot_be_fetched_is_tried_in_growing_steps(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.objects.error = Retryable("the API server is away")
        volumes = [{"name": "config", "configMap": {"name": "settings"}}]
        s.start(record(volumes=volumes))
        for tries, wait in ((1, 1), (2, 2)):
            await s.until(lambda: len(s.events.messages("FailedMount")) == tries)  # noqa: B023
            await quiet()
            assert len(s.events.messages("FailedMount")) == tries
            s.skip(wait)
        s.objects.error = None
        s.objects.put("configmaps", "settings", data={})
        s.skip(4)
        await s.until(lambda: s.phase == "Running")


@pytest.mark.parametrize("call", ["CreateContainer", "StartContainer"])
@with_skipped_time
async def test_a_failed_start_counts_no_second_crash(tmp_path: Path, call: str) -> None:
    async with scene(tmp_path) as s:
        await s.running()
        s.cri.fail(call, UNKNOWN, "not now")
        s.exit("main", 1)
        await s.until(lambda: s.waits() in ("CreateContainerError", "RunContainerError"))
        s.skip(10)
        await s.until(lambda: s.main().restartCount == 1 and s.main().state.running)
        s.exit("main", 1)
        await s.until(lambda: s.waits() == "CrashLoopBackOff")
        s.skip(10)
        await s.until(lambda: s.main().restartCount == 2 and s.main().state.running)
