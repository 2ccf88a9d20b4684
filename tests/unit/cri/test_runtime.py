"""The runtime client: each call carries its arguments to the wire and its answer back."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from agent.cri._generated import api_pb2 as pb
from agent.errors import ConfigError, Conflict, NotFound, Permanent, Retryable
from tests.fakes.clock import FakeClock
from tests.unit.cri.conftest import Rig, container_config, sandbox_config


async def test_the_handshake_names_the_runtime(rig: Rig) -> None:
    answer = await rig.runtime.version()
    assert (answer.runtime_name, answer.runtime_api_version) == ("fake", "v1")


async def test_a_runtime_without_cri_v1_is_refused_with_what_to_do(rig: Rig) -> None:
    rig.fake.unserved.add("Version")
    with pytest.raises(ConfigError, match=r"does not serve CRI v1: .*disabled_plugins"):
        await rig.runtime.version()


async def test_a_handshake_with_a_runtime_that_is_still_starting_may_be_repeated(rig: Rig) -> None:
    rig.fake.fail("Version", grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(Retryable):
        await rig.runtime.version()
    assert (await rig.runtime.version()).runtime_name == "fake"


async def test_a_pod_s_life_from_sandbox_to_removal(rig: Rig) -> None:
    runtime = rig.runtime
    sandbox_id = await rig.sandbox()
    assert (await runtime.pod_sandbox_status(sandbox_id)).status.network.ip
    container_id = await rig.container(sandbox_id)
    await runtime.start_container(container_id)
    assert (await runtime.container_status(container_id)).status.state == pb.CONTAINER_RUNNING
    rig.fake.exit(container_id, 3)
    status = (await runtime.container_status(container_id)).status
    assert (status.state, status.exit_code, status.reason) == (pb.CONTAINER_EXITED, 3, "Error")
    await runtime.remove_container(container_id)
    assert not await runtime.list_containers()
    await runtime.stop_pod_sandbox(sandbox_id)
    assert (await runtime.list_pod_sandbox())[0].state == pb.SANDBOX_NOTREADY
    await runtime.remove_pod_sandbox(sandbox_id)
    assert not await runtime.list_pod_sandbox()


async def test_lists_are_filtered_by_the_runtime(rig: Rig) -> None:
    first, second = await rig.sandbox("uid-1"), await rig.sandbox("uid-2")
    by_label = pb.PodSandboxFilter(label_selector={"uid": "uid-2"})
    assert [s.id for s in await rig.runtime.list_pod_sandbox(by_label)] == [second]
    one = await rig.container(first)
    await rig.container(second)
    of_first = pb.ContainerFilter(pod_sandbox_id=first)
    assert [c.id for c in await rig.runtime.list_containers(of_first)] == [one]


async def test_a_sandbox_s_name_stays_reserved_until_the_sandbox_is_removed(rig: Rig) -> None:
    sandbox_id = await rig.sandbox()
    with pytest.raises(Conflict, match=sandbox_id):
        await rig.sandbox()
    await rig.runtime.remove_pod_sandbox(sandbox_id)
    await rig.sandbox()


async def test_a_container_is_made_in_its_sandbox_from_the_given_config(rig: Rig) -> None:
    sandbox_id = await rig.sandbox()
    await rig.container(sandbox_id)
    [request] = rig.fake.called("CreateContainer")
    assert request.pod_sandbox_id == sandbox_id
    assert request.config == container_config()
    assert request.sandbox_config == sandbox_config()


async def test_the_runtime_handler_reaches_the_runtime(rig: Rig) -> None:
    sandbox_id = await rig.runtime.run_pod_sandbox(sandbox_config(), "kata")
    assert rig.fake.sandboxes[sandbox_id].runtime_handler == "kata"


async def test_stopping_a_container_returns_when_it_has_ended(rig: Rig) -> None:
    clock = FakeClock()
    rig.fake.clock = clock
    rig.fake.behaviours["main"].obeys_stop = False
    container_id = await rig.container(await rig.sandbox())
    await rig.runtime.start_container(container_id)
    async with asyncio.TaskGroup() as group:
        stop = group.create_task(rig.runtime.stop_container(container_id, 30))
        await rig.fake.reached("StopContainer")
        await clock.advance(29)
        assert not stop.done()
        await clock.advance(1)
    assert rig.fake.containers[container_id].exit_code == 137


async def test_a_container_that_obeys_ends_at_once(rig: Rig) -> None:
    container_id = await rig.container(await rig.sandbox())
    await rig.runtime.start_container(container_id)
    await rig.runtime.stop_container(container_id, 30)
    assert rig.fake.containers[container_id].exit_code == 0


async def test_the_call_s_deadline_leaves_room_for_the_grace(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines: list[float | None] = []

    async def within(deadline_s: float | None, request: object) -> None:
        deadlines.append(deadline_s)

    class Recording:
        pass

    recording = Recording()
    recording.within = within  # type: ignore[attr-defined]
    monkeypatch.setattr(rig.runtime, "_stop_container", recording)
    monkeypatch.setattr(rig.runtime, "_exec_sync", recording)
    await rig.runtime.stop_container("c", 600)
    await rig.runtime.exec_sync("c", ["true"], 5)
    await rig.runtime.exec_sync("c", ["true"], None)
    assert deadlines == [720, 125, None]


async def test_a_command_s_output_and_exit_code_come_back(rig: Rig) -> None:
    container_id = await rig.container(await rig.sandbox())
    await rig.runtime.start_container(container_id)
    rig.fake.behaviours["main"].exec_results.append(pb.ExecSyncResponse(stdout=b"hello", exit_code=7))
    answer = await rig.runtime.exec_sync(container_id, ["echo", "hello"], 1)
    assert (answer.stdout, answer.exit_code) == (b"hello", 7)
    [request] = rig.fake.called("ExecSync")
    assert (list(request.cmd), request.timeout) == (["echo", "hello"], 1)


async def test_a_command_that_the_runtime_killed_at_its_time_out_is_told_from_a_runtime_that_is_away(rig: Rig) -> None:
    rig.fake.fail("ExecSync", grpc.StatusCode.DEADLINE_EXCEEDED, "timeout 2s exceeded: context deadline exceeded")
    with pytest.raises(TimeoutError, match="longer than 2 s"):
        await rig.runtime.exec_sync("c", ["sleep", "9"], 1.5)
    assert rig.fake.called("ExecSync")[0].timeout == 2
    rig.fake.fail("ExecSync", grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(Retryable):
        await rig.runtime.exec_sync("c", ["sleep", "9"], 1)


async def test_a_command_in_a_container_that_has_ended_is_refused(rig: Rig) -> None:
    container_id = await rig.container(await rig.sandbox())
    with pytest.raises(Permanent, match="CONTAINER_CREATED"):
        await rig.runtime.exec_sync(container_id, ["true"], 1)


async def test_streaming_calls_answer_with_a_url(rig: Rig) -> None:
    sandbox_id = await rig.sandbox()
    container_id = await rig.container(sandbox_id)
    await rig.runtime.start_container(container_id)
    runtime = rig.runtime
    assert "/exec/" in await runtime.exec(container_id, ["sh"], stdin=True, stdout=True, stderr=False, tty=True)
    assert "/attach/" in await runtime.attach(container_id, stdin=True, stdout=True, stderr=True, tty=False)
    assert "/portforward/" in await runtime.port_forward(sandbox_id, [80, 443])
    assert list(rig.fake.called("PortForward")[0].port) == [80, 443]


async def test_new_resources_reach_the_container(rig: Rig) -> None:
    container_id = await rig.container(await rig.sandbox())
    await rig.runtime.update_container_resources(container_id, pb.LinuxContainerResources(cpu_shares=512))
    status = (await rig.runtime.container_status(container_id)).status
    assert status.resources.linux.cpu_shares == 512


async def test_what_does_not_exist_is_not_found(rig: Rig) -> None:
    with pytest.raises(NotFound):
        await rig.runtime.container_status("nope")
    with pytest.raises(NotFound):
        await rig.runtime.pod_sandbox_status("nope")


async def test_conditions_of_the_runtime_are_read(rig: Rig) -> None:
    rig.fake.conditions["NetworkReady"] = False
    conditions = (await rig.runtime.status()).status.conditions
    assert [(c.type, c.status) for c in conditions] == [("RuntimeReady", True), ("NetworkReady", False)]
    assert (await rig.runtime.runtime_config()).linux.cgroup_driver == pb.CGROUPFS


async def test_long_lists_are_unimplemented_where_the_runtime_cannot_stream_them(rig: Rig) -> None:
    for stream in (
        rig.runtime.stream_pod_sandboxes(),
        rig.runtime.stream_containers(),
        rig.runtime.stream_container_stats(),
        rig.runtime.stream_pod_sandbox_stats(),
        rig.runtime.stream_pod_sandbox_metrics(),
        rig.images.stream_images(),
    ):
        with pytest.raises(Permanent) as refusal:
            await anext(stream)
        assert refusal.value.reason == "Unimplemented"


async def test_every_call_of_the_service_has_a_method(rig: Rig) -> None:
    """A method that a later CRI adds must not be forgotten here."""
    names = {method.name for method in pb.DESCRIPTOR.services_by_name["RuntimeService"].methods}
    calls = [c for c in vars(rig.runtime).values() if hasattr(c, "_method")]
    assert {c._method for c in calls} == names
    assert len(calls) == len(names)
