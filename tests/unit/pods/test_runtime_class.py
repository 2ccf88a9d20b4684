"""A RuntimeClass leads to the handler that the sandbox is made with."""

from __future__ import annotations

from pathlib import Path

from agent.model.objects import ObjectKey
from agent.pods.references import references
from tests.fakes.skipped_time import with_skipped_time
from tests.unit.pods.pods import make_pod
from tests.unit.pods.scene import record, scene

KEY = ObjectKey("runtimeclasses", "", "gvisor")
CLASS = b'{"metadata": {"name": "gvisor"}, "handler": "runsc"}'


def test_the_class_is_kept_like_everything_that_a_pod_names() -> None:
    assert references(make_pod(runtimeClassName="gvisor")) == (KEY,)
    assert references(make_pod()) == ()


@with_skipped_time
async def test_the_sandbox_is_made_with_the_handler_of_the_class(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.objects.held[KEY] = CLASS
        await s.running(record(runtimeClassName="gvisor"))
        (request,) = [r for method, r in s.cri.calls if method == "RunPodSandbox"]
        assert request.runtime_handler == "runsc"
        assert s.objects.retained["u-1"] == (KEY,)


@with_skipped_time
async def test_a_class_that_is_not_there_is_said_and_waited_for(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = s.start(record(runtimeClassName="gvisor"))
        said = 'Failed to create pod sandbox: runtimeclass.node.k8s.io "gvisor" not found'
        await s.until(lambda: said in s.events.messages("FailedCreatePodSandBox"))
        assert "RunPodSandbox" not in s.moves
        s.objects.held[KEY] = CLASS
        worker.objects_changed()
        await s.until(lambda: s.phase == "Running")


@with_skipped_time
async def test_a_class_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.objects.held[KEY] = b"{}"
        s.start(record(runtimeClassName="gvisor"))
        await s.until(lambda: s.events.messages("FailedCreatePodSandBox"))
        assert "RuntimeClass gvisor can't be read" in s.events.messages("FailedCreatePodSandBox")[0]


@with_skipped_time
async def test_a_pod_with_a_user_namespace_is_made_with_its_range_in_every_part(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.machine.users.handlers = frozenset({""})
        await s.running(record(hostUsers=False))
        sandbox = next(r for method, r in s.cri.calls if method == "RunPodSandbox").config
        made = next(r for method, r in s.cri.calls if method == "CreateContainer").config
        for context in (sandbox.linux.security_context, made.linux.security_context):
            (ids,) = context.namespace_options.userns_options.uids
            assert (ids.host_id, ids.container_id, ids.length) == (65536, 0, 65536)
        assert made.mounts
        assert all(mount.uidMappings[0].host_id == mount.gidMappings[0].host_id == 65536 for mount in made.mounts)


@with_skipped_time
async def test_a_runtime_without_user_namespaces_makes_no_sandbox_for_one(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.start(record(hostUsers=False))
        await s.until(lambda: s.events.messages("FailedCreatePodSandBox"))
        assert "runtime does not support user namespaces" in s.events.messages("FailedCreatePodSandBox")[0]
        assert "RunPodSandbox" not in s.moves
