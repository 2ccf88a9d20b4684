"""The stream of runtime events, from either source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import grpc
import pytest

from agent.cri._generated import api_pb2 as pb
from agent.cri._generated import event_service_pb2, event_types_pb2
from agent.cri.events import Kind, RuntimeEvent, Source, from_containerd, from_cri, runtime_events
from agent.errors import Permanent, Retryable
from tests.fakes.reader import FakeReader
from tests.fakes.waiting import PATIENCE_S
from tests.unit.cri.conftest import Rig


@dataclass(slots=True)
class Listening:
    sources: list[Source] = field(default_factory=list)
    seen: asyncio.Queue[RuntimeEvent] = field(default_factory=asyncio.Queue)
    known: FakeReader = field(default_factory=FakeReader)

    async def take(self, count: int) -> list[RuntimeEvent]:
        async with asyncio.timeout(PATIENCE_S):
            return [await self.seen.get() for _ in range(count)]


@asynccontextmanager
async def listening(rig: Rig) -> AsyncIterator[Listening]:
    """Read the events in a task; what ends the stream ends the block."""
    listener = Listening()
    live = asyncio.Event()

    def subscribed(source: Source) -> None:
        listener.sources.append(source)
        live.set()

    async def read() -> None:
        async with aclosing(runtime_events(rig.channel, rig.runtime, listener.known, subscribed)) as events:
            async for event in events:
                listener.seen.put_nowait(event)

    async with asyncio.TaskGroup() as group:
        reader = group.create_task(read())
        await live.wait()
        yield listener
        reader.cancel()


async def test_a_runtime_with_cri_events_is_read_through_them(rig: Rig) -> None:
    async with listening(rig) as listener:
        assert listener.sources == [Source.CRI]
        sandbox_id = await rig.sandbox("uid-7")
        container_id = await rig.container(sandbox_id)
        await rig.runtime.start_container(container_id)
        rig.fake.exit(container_id, 1)
        await rig.runtime.remove_container(container_id)
        events = await listener.take(2)
        assert listener.seen.empty()
    assert [(e.kind, e.container_id) for e in events] == [
        (Kind.STOPPED, container_id),
        (Kind.DELETED, container_id),
    ]
    assert {(e.sandbox_id, e.pod_uid) for e in events} == {(sandbox_id, "uid-7")}
    assert all(e.at_ns > 0 for e in events)


async def test_a_runtime_without_them_is_read_through_containerd_s_own_service(rig: Rig) -> None:
    rig.fake.event_source = Source.CONTAINERD
    async with listening(rig) as listener:
        assert listener.sources == [Source.CONTAINERD]
        sandbox_id = await rig.sandbox()
        container_id = await rig.container(sandbox_id)
        await rig.runtime.start_container(container_id)
        rig.fake.exit(container_id)
        await rig.runtime.remove_pod_sandbox(sandbox_id)
        events = await listener.take(4)
        assert listener.seen.empty()
    assert [(e.kind, e.container_id) for e in events] == [
        (Kind.STOPPED, container_id),
        (Kind.STOPPED, sandbox_id),
        (Kind.DELETED, container_id),
        (Kind.DELETED, sandbox_id),
    ]
    assert all(e.sandbox_id is None and e.pod_uid is None and e.at_ns > 0 for e in events)


async def test_only_containers_of_cri_are_asked_of_containerd(rig: Rig) -> None:
    rig.fake.event_source = Source.CONTAINERD
    async with listening(rig):
        pass
    [request] = rig.fake.called("Subscribe")
    assert all(f.startswith("namespace==k8s.io,topic==") for f in request.filters)


async def test_a_command_that_ends_in_a_container_is_not_the_container_s_end(rig: Rig) -> None:
    rig.fake.event_source = Source.CONTAINERD
    container_id = await rig.container(await rig.sandbox())
    await rig.runtime.start_container(container_id)
    async with listening(rig) as listener:
        rig.fake.tell_exec_exit(container_id)
        rig.fake.exit(container_id)
        [event] = await listener.take(1)
        assert listener.seen.empty()
    assert event.kind is Kind.STOPPED


@pytest.mark.parametrize("start_is_noted", [True, False])
async def test_containerd_s_word_of_an_exit_is_held_back_until_cri_shows_it(rig: Rig, start_is_noted: bool) -> None:
    rig.fake.event_source = Source.CONTAINERD
    container_id = await rig.container(await rig.sandbox())
    if start_is_noted:
        await rig.runtime.start_container(container_id)
    async with listening(rig) as listener:
        asked = len(rig.fake.called("ListContainers"))
        rig.fake.tell_exit(container_id)
        await rig.fake.reached("ListContainers", asked + 2)
        assert listener.seen.empty()
        rig.fake.record_exit(container_id, 4)
        [event] = await listener.take(1)
    assert (event.kind, event.container_id, event.shown) == (Kind.STOPPED, container_id, True)


@pytest.mark.parametrize("which", ["container", "sandbox"])
async def test_what_the_reader_knows_is_held_back_without_lists(rig: Rig, which: str) -> None:
    rig.fake.event_source = Source.CONTAINERD
    sandbox_id = await rig.sandbox()
    container_id = await rig.container(sandbox_id)
    await rig.runtime.start_container(container_id)
    async with listening(rig) as listener:
        listener.known.sandboxes.add(sandbox_id)
        listener.known.containers.add(container_id)
        lists = len(rig.fake.called("ListContainers"))
        if which == "container":
            rig.fake.tell_exit(container_id)
            await rig.fake.reached("ContainerStatus", 2)
            assert listener.seen.empty()
            rig.fake.record_exit(container_id, 4)
        else:
            rig.fake.tell_exit(sandbox_id)
            await rig.fake.reached("PodSandboxStatus", 2)
            assert listener.seen.empty()
            rig.fake.lose_sandbox(sandbox_id)
        [event] = await listener.take(1)
    assert (event.kind, event.shown) == (Kind.STOPPED, True)
    assert len(rig.fake.called("ListContainers")) == lists


async def test_what_is_removed_before_its_end_is_shown_has_ended(rig: Rig) -> None:
    rig.fake.event_source = Source.CONTAINERD
    async with listening(rig) as listener:
        listener.known.containers.add("gone")
        rig.fake.tell_exit("gone")
        [event] = await listener.take(1)
    assert (event.kind, event.shown) == (Kind.STOPPED, True)


@pytest.mark.parametrize("source", [Source.CRI, Source.CONTAINERD])
async def test_an_end_that_the_reader_asked_for_is_no_news(rig: Rig, source: Source) -> None:
    rig.fake.event_source = source
    sandbox_id = await rig.sandbox()
    ours, another = await rig.container(sandbox_id, "a"), await rig.container(sandbox_id, "b")
    for container_id in (ours, another):
        await rig.runtime.start_container(container_id)
    async with listening(rig) as listener:
        listener.known.ending.add(ours)
        for container_id in (ours, another):
            rig.fake.exit(container_id)
            await rig.runtime.remove_container(container_id)
        events = await listener.take(2)
        assert listener.seen.empty()
    assert [(e.kind, e.container_id) for e in events] == [(Kind.STOPPED, another), (Kind.DELETED, another)]


async def test_an_exit_that_cri_never_shows_is_told_all_the_same(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.cri.events._SETTLE_DELAYS_S", (0.001, 0.001))
    rig.fake.event_source = Source.CONTAINERD
    container_id = await rig.container(await rig.sandbox())
    await rig.runtime.start_container(container_id)
    async with listening(rig) as listener:
        rig.fake.tell_exit(container_id)
        [event] = await listener.take(1)
    assert (event.kind, event.shown) == (Kind.STOPPED, False)


async def test_a_runtime_without_any_events_is_permanent_so_that_the_caller_relists(rig: Rig) -> None:
    rig.fake.event_source = None
    with pytest.raises(Permanent, match="serves no container events") as refusal:
        await anext(runtime_events(rig.channel, rig.runtime, FakeReader()))
    assert refusal.value.reason == "Unimplemented"


@pytest.mark.parametrize("source", [Source.CRI, Source.CONTAINERD])
async def test_a_stream_that_the_runtime_ends_is_retryable(rig: Rig, source: Source) -> None:
    rig.fake.event_source = source

    async def break_under_a_reader() -> None:
        async with listening(rig) as listener:
            rig.fake.break_streams()
            await listener.seen.get()

    with pytest.raises(ExceptionGroup) as ended:
        await break_under_a_reader()
    assert ended.group_contains(Retryable, match="ended the stream")


async def test_a_source_that_refuses_late_hands_over_and_says_so_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.cri.events._REFUSAL_S", 0)
    rig.fake.event_source = Source.CONTAINERD
    gate = rig.fake.hold("GetContainerEvents")
    async with listening(rig) as listener:
        assert listener.sources == [Source.CRI]
        gate.set()
        await rig.fake.until(lambda: rig.fake.subscriptions == 1)
        await rig.fake.reached("Version", 2)
        sandbox_id = await rig.sandbox()
        await rig.runtime.remove_pod_sandbox(sandbox_id)
        events = await listener.take(2)
    assert listener.sources == [Source.CRI, Source.CONTAINERD]
    assert {e.container_id for e in events} == {sandbox_id}


async def test_a_runtime_that_is_away_is_retryable_not_without_events(rig: Rig) -> None:
    rig.fake.fail("GetContainerEvents", grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(Retryable):
        await anext(runtime_events(rig.channel, rig.runtime, FakeReader()))


async def test_a_refusal_is_not_taken_for_a_missing_source(rig: Rig) -> None:
    rig.fake.fail("GetContainerEvents", grpc.StatusCode.PERMISSION_DENIED, "no")
    with pytest.raises(Permanent, match="no"):
        await anext(runtime_events(rig.channel, rig.runtime, FakeReader()))
    assert not rig.fake.called("Subscribe")


async def test_leaving_the_stream_ends_the_subscription(rig: Rig) -> None:
    async with listening(rig):
        assert rig.fake.subscriptions == 1
    await rig.fake.until(lambda: rig.fake.subscriptions == 0)


@pytest.mark.parametrize("kind", [pb.CONTAINER_CREATED_EVENT, pb.CONTAINER_STARTED_EVENT, 9])
def test_a_beginning_and_a_type_that_a_later_cri_adds_are_skipped(kind: pb.ContainerEventType) -> None:
    assert from_cri(pb.ContainerEventResponse(container_id="c", container_event_type=kind)) is None


def test_an_event_whose_sandbox_is_gone_has_no_pod() -> None:
    event = from_cri(pb.ContainerEventResponse(container_id="c", container_event_type=pb.CONTAINER_DELETED_EVENT))
    assert event == RuntimeEvent(Kind.DELETED, "c", None, None, 0)


def test_events_of_other_namespaces_and_topics_are_skipped() -> None:
    body = event_types_pb2.TaskExit(container_id="c", id="c").SerializeToString()
    envelope = event_service_pb2.Envelope(namespace="moby", topic="/tasks/exit")
    envelope.event.value = body
    assert from_containerd(envelope) is None
    envelope.namespace = "k8s.io"
    assert from_containerd(envelope) is not None
    envelope.topic = "/tasks/paused"
    assert from_containerd(envelope) is None
