"""Pods read from a runtime on the real wire: only ours, newest first, what cannot change is read once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from agent.cri._generated import api_pb2 as pb
from agent.cri.channel import RuntimeChannel
from agent.cri.runtime import RuntimeClient
from agent.errors import Retryable
from agent.model import labels
from agent.model.observed import ContainerState, ObservedPod
from agent.pods.observe import FEW, LATE_S, Observer
from tests.fakes.clock import FakeClock
from tests.fakes.cri import FakeRuntime, serving


async def silence(status: pb.ContainerStatus) -> str:
    return ""


class Scene:
    def __init__(self, world: FakeRuntime, runtime: RuntimeClient, words: Any = silence) -> None:
        self.world = world
        self.runtime = runtime
        self.clock = FakeClock()
        self.observer = Observer(runtime, "node-1", words, self.clock.monotonic)

    async def sandbox(self, uid: str = "u-1", node: str = "node-1", attempt: int = 0, *, host: bool = False) -> str:
        config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name="web", namespace="shop", uid=uid, attempt=attempt),
            labels=identity(uid, node),
        )
        if host:
            config.linux.security_context.namespace_options.network = pb.NODE
        return await self.runtime.run_pod_sandbox(config)

    async def container(
        self, sandbox_id: str, name: str = "main", uid: str = "u-1", node: str = "node-1", attempt: int = 0
    ) -> str:
        self.world.add_image("busybox:1")
        config = pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=name, attempt=attempt),
            image=pb.ImageSpec(image="busybox:1"),
            labels={**identity(uid, node), labels.CONTAINER_NAME: name},
            annotations={labels.CONTAINER_HASH: "abc"},
        )
        return await self.runtime.create_container(sandbox_id, config, self.world.sandboxes[sandbox_id].config)

    async def made(self, name: str = "main", fails: bool = False) -> str:
        """The pod's sandbox or a container of it, and the observer is told."""
        with self.observer.making("u-1") as listed:
            if not self.world.sandboxes:
                config = pb.PodSandboxConfig(
                    metadata=pb.PodSandboxMetadata(name="web", namespace="shop", uid="u-1"),
                    labels=identity("u-1", "node-1"),
                )
                made = await self.runtime.run_pod_sandbox(config)
                listed.add_sandbox(made, config)
                return made
            [sandbox_id] = self.world.sandboxes
            made = await self.container(sandbox_id, name)
            await self.runtime.start_container(made)
            if fails:
                raise Retryable("the answer was lost")
            listed.add_container(made, sandbox_id, self.world.containers[made].config)
            return made

    async def look(self, uid: str = "u-1") -> ObservedPod:
        return await self.observer.observe(uid, "shop", "web")


class Lists:
    """Counts the runtime's lists from now on."""

    def __init__(self, scene: Scene) -> None:
        self._world = scene.world
        self._before = self._now()

    def _now(self) -> int:
        return sum(method.startswith("List") for method, _ in self._world.calls)

    def since(self) -> int:
        return self._now() - self._before


def identity(uid: str, node: str) -> dict[str, str]:
    return {
        labels.POD_NAME: "web",
        labels.POD_NAMESPACE: "shop",
        labels.POD_UID: uid,
        labels.NODE: node,
    }


@asynccontextmanager
async def a_scene(words: Any = silence) -> AsyncIterator[Scene]:
    world = FakeRuntime()
    async with serving(world) as endpoint, RuntimeChannel(endpoint) as channel:
        yield Scene(world, RuntimeClient(channel), words)


async def test_a_pod_is_read_with_its_sandbox_and_containers() -> None:
    async with a_scene() as scene:
        sandbox_id = await scene.sandbox()
        container_id = await scene.container(sandbox_id)
        await scene.runtime.start_container(container_id)
        pod = await scene.look()
        assert (pod.uid, pod.namespace, pod.name) == ("u-1", "shop", "web")
        assert pod.sandbox is not None
        assert (pod.sandbox.id, pod.sandbox.ready, pod.sandbox.attempt) == (sandbox_id, True, 0)
        assert pod.sandbox.ips == (scene.world.sandboxes[sandbox_id].ip,)
        (found,) = pod.containers
        assert (found.id, found.name, found.sandbox_id, found.spec_hash) == (container_id, "main", sandbox_id, "abc")
        assert (found.state, found.image, found.image_id) == (ContainerState.RUNNING, "busybox:1", "sha256:busybox:1")
        assert found.started_at_ns > 0
        assert found.finished_at_ns == 0
        assert pod.running == pod.alive == (found,)


async def test_after_what_was_made_a_look_lists_nothing_and_reads_the_same() -> None:
    async with a_scene() as scene:
        await scene.look()
        listed = Lists(scene)
        sandbox_id = await scene.made()
        with_sandbox = await scene.look()
        container_id = await scene.made()
        with_container = await scene.look()
        assert listed.since() == 0
        assert [one.id for one in with_sandbox.sandboxes] == [sandbox_id]
        assert [(one.id, one.state) for one in with_container.containers] == [(container_id, ContainerState.RUNNING)]
        assert await scene.look() == with_container
        assert listed.since() == 0


@pytest.mark.parametrize("ours", [True, False])
async def test_an_end_while_something_is_made_is_seen_by_the_next_look(ours: bool) -> None:
    async with a_scene() as scene:
        await scene.look()
        await scene.made()
        first = await scene.made("first")
        await scene.look()
        listed = Lists(scene)
        with scene.observer.making("u-1") as made:
            if ours:
                with scene.observer.ending(first):
                    await scene.runtime.stop_container(first, 0)
            else:
                scene.world.exit(first, 3)
                scene.observer.end("u-1")
            [sandbox_id] = scene.world.sandboxes
            second = await scene.container(sandbox_id, "second")
            made.add_container(second, sandbox_id, scene.world.containers[second].config)
        states = {one.id: one.state for one in (await scene.look()).containers}
        assert states == {first: ContainerState.EXITED, second: ContainerState.CREATED}
        assert listed.since() == 0


async def test_how_known_ones_are_is_asked_one_by_one_and_of_many_by_a_list() -> None:
    async with a_scene() as scene:
        sandbox_id = await scene.sandbox()
        for name in map(str, range(FEW - 1)):
            await scene.runtime.start_container(await scene.container(sandbox_id, name))
        alive = await scene.look()
        listed = Lists(scene)
        scene.world.exit(alive.containers[0].id, 3)
        seen = await scene.look()
        assert [one.state is ContainerState.EXITED for one in seen.containers] == [True] + [False] * (FEW - 2)
        scene.world.lose_sandbox(sandbox_id)
        lost = await scene.look()
        assert lost.sandboxes[0].ips == alive.sandboxes[0].ips != ()
        assert not lost.sandboxes[0].ready
        assert listed.since() == 0
        another = await scene.sandbox(attempt=1)
        for name in map(str, range(FEW)):
            await scene.container(another, f"more-{name}")
        scene.observer.doubt("u-1")
        assert len((await scene.look()).containers) == FEW - 1 + FEW
        assert listed.since() == 2
        await scene.look()
        assert listed.since() == 4


async def test_what_others_removed_is_asked_for_once_and_listed_when_nothing_else_lives() -> None:
    async with a_scene() as scene:
        sandbox_id = await scene.sandbox()
        kept, removed = await scene.container(sandbox_id, "a"), await scene.container(sandbox_id, "b")
        await scene.look()
        listed = Lists(scene)
        await scene.runtime.remove_container(removed)
        assert [one.id for one in (await scene.look()).containers] == [kept]
        asked = len(scene.world.called("ContainerStatus"))
        await scene.look()
        assert len(scene.world.called("ContainerStatus")) == asked + 1
        await scene.runtime.remove_pod_sandbox(sandbox_id)
        for lists in (0, 2):
            pod = await scene.look()
            assert (pod.sandboxes, pod.containers, listed.since()) == ((), (), lists)


async def test_a_doubt_during_a_list_is_not_forgotten() -> None:
    async with a_scene() as scene:
        list_sandboxes = scene.runtime.list_pod_sandbox

        async def told_meanwhile(of: pb.PodSandboxFilter) -> Any:
            found = await list_sandboxes(of)
            scene.observer.doubt("u-1")
            return found

        await scene.sandbox()
        scene.runtime.list_pod_sandbox = told_meanwhile  # type: ignore[method-assign, assignment]
        await scene.look()
        listed = Lists(scene)
        await scene.look()
        assert listed.since() == 2


async def test_what_is_being_ended_is_told_until_the_last_call_for_it_is_over() -> None:
    async with a_scene() as scene:
        observer = scene.observer
        with observer.ending("a", "b"):
            with observer.ending("a"):
                assert [observer.is_ending(one) for one in "abc"] == [True, True, False]
            assert observer.is_ending("a")
        assert not observer.is_ending("a")


async def test_what_ended_or_failed_meanwhile_is_listed() -> None:
    async with a_scene() as scene:
        await scene.look()
        listed = Lists(scene)
        await scene.made()
        scene.observer.doubt("u-1")
        await scene.look()
        assert listed.since() == 2
        with pytest.raises(Retryable):
            await scene.made(fails=True)
        assert len((await scene.look()).containers) == 1
        assert listed.since() == 4
        with scene.observer.making("u-1"):
            scene.observer.doubt("u-1")
        await scene.look()
        assert listed.since() == 6


async def test_a_pod_of_which_nothing_was_begun_is_not_listed_once_everything_was_seen() -> None:
    async with a_scene() as scene:
        await scene.observer.observe_all()
        listed = Lists(scene)
        assert (await scene.look()).sandboxes == ()
        assert listed.since() == 2, "an agent before this one may have begun it"
        await scene.clock.advance(LATE_S)
        assert (await scene.look()).sandboxes == ()
        sandbox_id = await scene.made()
        assert [one.id for one in (await scene.look()).sandboxes] == [sandbox_id]
        await scene.made()
        assert len((await scene.look()).containers) == 1
        await scene.look()
        assert listed.since() == 2


async def test_where_the_runtime_was_away_a_new_pod_is_listed() -> None:
    async with a_scene() as scene:
        await scene.observer.observe_all()
        await scene.clock.advance(LATE_S)
        scene.world.fail("ListContainers", grpc.StatusCode.UNAVAILABLE)
        with pytest.raises(Retryable):
            await scene.observer.observe_all()
        listed = Lists(scene)
        await scene.look()
        assert listed.since() == 2
        await scene.observer.observe_all()
        await scene.clock.advance(LATE_S)
        await scene.look()
        assert listed.since() == 4


async def test_what_is_made_during_a_look_at_everything_is_listed_until_it_is_gone() -> None:
    async with a_scene() as scene:
        await scene.observer.observe_all()
        await scene.clock.advance(LATE_S)
        list_sandboxes = scene.runtime.list_pod_sandbox

        async def slow_list(of: pb.PodSandboxFilter) -> Any:
            found = await list_sandboxes(of)
            await scene.made()
            return found

        scene.runtime.list_pod_sandbox = slow_list  # type: ignore[method-assign, assignment]
        assert await scene.observer.observe_all() == {}
        del scene.runtime.list_pod_sandbox
        assert len((await scene.look()).sandboxes) == 1
        assert set(await scene.observer.observe_all()) == {"u-1"}
        for pod in (await scene.look(), await scene.look()):
            assert len(pod.sandboxes) == 1
        await scene.runtime.remove_pod_sandbox(pod.sandboxes[0].id)
        assert (await scene.look()).sandboxes == ()
        assert await scene.observer.observe_all() == {}
        listed = Lists(scene)
        assert (await scene.look()).sandboxes == ()
        assert listed.since() == 0


async def test_a_failed_start_is_listed() -> None:
    async with a_scene() as scene:
        await scene.observer.observe_all()
        await scene.clock.advance(LATE_S)
        await scene.look()
        scene.world.fail("RunPodSandbox", grpc.StatusCode.UNAVAILABLE)
        with pytest.raises(Retryable):
            await scene.made()
        await scene.sandbox()
        assert len((await scene.look()).sandboxes) == 1


async def test_sandboxes_of_other_nodes_agents_and_pods_are_not_seen() -> None:
    async with a_scene() as scene:
        await scene.sandbox("u-1")
        await scene.sandbox("u-2")
        await scene.sandbox("u-3", node="another")
        await scene.container(await scene.sandbox("u-4", node="another"), uid="u-4", node="another")
        assert set(await scene.observer.observe_all()) == {"u-1", "u-2"}
        assert [s.attempt for s in (await scene.look("u-2")).sandboxes] == [0]
        assert (await scene.look("u-3")).sandboxes == ()


async def test_the_newest_attempt_comes_first() -> None:
    async with a_scene() as scene:
        ids = []
        for attempt in (0, 1, 2):
            sandbox_id = await scene.sandbox(attempt=attempt)
            ids.append(await scene.container(sandbox_id, attempt=attempt))
        pod = await scene.look()
        assert [s.attempt for s in pod.sandboxes] == [2, 1, 0]
        assert [c.id for c in pod.containers] == ids[::-1]
        newest = pod.newest("main")
        assert newest is not None
        assert newest.attempt == 2


async def test_what_has_not_changed_is_not_asked_for_again() -> None:
    async with a_scene() as scene:
        container_id = await scene.container(await scene.sandbox())
        first = await scene.look()
        assert await scene.look() == first
        assert (await scene.observer.observe_all())["u-1"] == first
        statuses = [len(scene.world.called(f"{kind}Status")) for kind in ("Container", "PodSandbox")]
        assert statuses == [2, 2], "the second look's; the runtime's list showed no change"
        assert scene.observer.knows(container_id, ContainerState.CREATED)
        assert not scene.observer.knows(container_id, ContainerState.RUNNING)
        assert not scene.observer.knows("other", ContainerState.CREATED)
        assert scene.observer.owner(container_id) == "u-1"
        kinds = [scene.observer.is_sandbox(one) for one in (first.sandboxes[0].id, container_id, "other")]
        assert kinds == [True, False, None]


async def test_an_end_is_read_with_its_last_words() -> None:
    async def words(status: pb.ContainerStatus) -> str:
        return f"goodbye of {status.metadata.name}"

    async with a_scene(words) as scene:
        container_id = await scene.container(await scene.sandbox())
        await scene.runtime.start_container(container_id)
        assert (await scene.look()).containers[0].message == ""
        scene.world.exit(container_id, 3, "OOMKilled", message="out of memory")
        (ended,) = (await scene.look()).containers
        assert (ended.state, ended.exit_code, ended.reason) == (ContainerState.EXITED, 3, "OOMKilled")
        assert ended.message == "out of memory: goodbye of main"
        assert ended.finished_at_ns >= ended.started_at_ns > 0


async def test_a_dead_sandbox_keeps_the_address_it_had() -> None:
    async with a_scene() as scene:
        sandbox_id = await scene.sandbox()
        before = (await scene.look()).sandboxes[0]
        scene.world.lose_sandbox(sandbox_id)
        after = (await scene.look()).sandboxes[0]
        assert (after.ready, after.ips) == (False, before.ips)


async def test_a_pod_on_the_hosts_network_has_no_address_of_its_own() -> None:
    async with a_scene() as scene:
        await scene.sandbox(host=True)
        assert (await scene.look()).sandboxes[0].ips == ()


async def test_what_is_removed_between_list_and_status_is_not_there() -> None:
    async with a_scene() as scene:
        await scene.container(await scene.sandbox())
        scene.world.fail("ContainerStatus", grpc.StatusCode.NOT_FOUND)
        scene.world.fail("PodSandboxStatus", grpc.StatusCode.NOT_FOUND)
        pod = await scene.look()
        assert (pod.sandboxes, pod.containers) == ((), ())


async def test_a_runtime_that_is_away_is_no_empty_pod() -> None:
    async with a_scene() as scene:
        scene.world.fail("ListContainers", grpc.StatusCode.UNAVAILABLE)
        with pytest.raises(Retryable):
            await scene.look()


async def test_what_is_gone_is_forgotten() -> None:
    async with a_scene() as scene:
        sandbox_id = await scene.sandbox()
        container_id = await scene.container(sandbox_id)
        pod = await scene.look()
        scene.observer.forget(pod)
        assert scene.observer.owner(container_id) is None
        await scene.look()
        assert len(scene.world.called("ContainerStatus")) == 2
        await scene.runtime.remove_pod_sandbox(sandbox_id)
        assert await scene.observer.observe_all() == {}
        assert not scene.observer.knows(container_id, ContainerState.CREATED)


@pytest.mark.parametrize(
    ("message", "abandoned"),
    [
        ("failed to create shim task: context canceled: unknown", True),
        ("failed to start shim: start failed: : signal: killed: unknown", True),
        ("exec: nosuch: executable file not found in $PATH", False),
    ],
)
async def test_a_start_that_ended_with_its_caller_is_told_from_one_that_cannot_work(
    message: str, abandoned: bool
) -> None:
    async with a_scene() as scene:
        container_id = await scene.container(await scene.sandbox())
        held = scene.world.containers[container_id]
        held.state, held.exit_code, held.reason, held.message = pb.CONTAINER_EXITED, 128, "StartError", message
        pod = await scene.look()
        assert [c.id for c in pod.abandoned] == ([container_id] if abandoned else [])
        assert [c.id for c in pod.containers] == ([] if abandoned else [container_id])


async def test_the_image_is_what_the_pod_named_where_the_runtime_tells_any_tag_of_it() -> None:
    async with a_scene() as s:
        container_id = await s.container(await s.sandbox())
        s.world.containers[container_id].config.annotations[labels.CONTAINER_IMAGE] = "written:1"
        assert (await s.look()).containers[0].image == "written:1"


async def test_an_end_that_was_told_while_the_first_answer_was_on_its_way_is_seen() -> None:
    async with a_scene() as scene:
        container_id = await scene.container(await scene.sandbox())
        await scene.runtime.start_container(container_id)
        ask = scene.runtime.container_status

        async def answer_of_before(container: str) -> pb.ContainerStatusResponse:
            answer = await ask(container)
            if scene.observer.owner(container) is None and not scene.world.containers[container].finished_at:
                scene.world.record_exit(container, 3)
                scene.observer.hear_end(container)
            return answer

        scene.runtime.container_status = answer_of_before  # type: ignore[method-assign,assignment]
        (found,) = (await scene.look()).containers
        assert (found.state, found.exit_code) == (ContainerState.EXITED, 3)
