"""What happened before a cut was known is told with what happened after."""

from __future__ import annotations

import asyncio

import msgspec

from agent.kube.events import EventRecorder
from agent.kube.rest import Api
from agent.model.objects import ObjectReference
from agent.model.record import PodRecord
from agent.model.status import Phase, PodStatus
from agent.pods.telling import Telling
from agent.providers.contract import PodUpdate
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.clock import FakeClock
from tests.fakes.waiting import eventually


class Clock(FakeClock):
    def since(self, unix_s: float) -> float:
        return self.wall() - unix_s


async def test_the_journal_begins_with_the_first_status_that_was_not_taken(server: FakeApiServer, api: Api) -> None:
    clock = Clock()
    events = EventRecorder(api, "edge", clock)
    telling = Telling(api, events, clock.wall, lambda _uid: None, lambda: None)
    meta = server.put("pods", "web", "default")["metadata"]
    record = PodRecord.decode(msgspec.json.encode({"metadata": meta, "spec": {}}))
    about = ObjectReference.of(record.pod)
    publisher = telling.publisher
    assert publisher is not None
    publishing = asyncio.ensure_future(publisher.run())
    await asyncio.sleep(0)

    def becomes(phase: Phase) -> None:
        telling.tell(PodUpdate(record, PodStatus(phase=phase)))

    becomes(Phase.PENDING)
    await eventually(lambda: len(server.seen("PATCH")) == 1 and publisher.waiting == 0)
    server.fail(503, times=1000)
    await clock.advance(5)
    becomes(Phase.RUNNING)
    await clock.advance(5)
    becomes(Phase.FAILED)
    await clock.advance(5)
    events.record(about, "Normal", "First", "x")
    events.record(about, "Normal", "Second", "x")
    assert [event.reason for event in events.backlog] == ["First", "Second"]
    api.link.lost()
    await clock.advance(5)
    becomes(Phase.SUCCEEDED)
    publishing.cancel()
    await asyncio.wait([publishing])

    told = [(event.message, event.first_at - clock.wall()) for event in events.backlog if event.reason != "First"]
    assert told == [
        ("phase Pending to Running", -15.0),
        ("phase Running to Failed", -10.0),
        ("x", -5.0),
        ("phase Failed to Succeeded", 0.0),
    ]


async def test_of_a_pod_that_is_gone_no_event_is_remembered(server: FakeApiServer, api: Api) -> None:
    clock = Clock()
    events = EventRecorder(api, "edge", clock)
    telling = Telling(api, events, clock.wall, lambda _uid: None, lambda: None)
    publisher = telling.publisher
    assert publisher is not None
    publishing = asyncio.ensure_future(publisher.run())
    await asyncio.sleep(0)
    meta = server.put("pods", "web", "default")["metadata"]
    record = PodRecord.decode(msgspec.json.encode({"metadata": meta, "spec": {}}))
    about = ObjectReference.of(record.pod)
    telling.tell(PodUpdate(record, PodStatus(phase=Phase.RUNNING)))
    for _ in range(2):
        events.record(about, "Normal", "Started", "x")
    telling.tell(PodUpdate(record, PodStatus(phase=Phase.SUCCEEDED), gone=True))
    events.record(about, "Normal", "Started", "x")
    assert [event.count for event in events.backlog] == [2, 1], "what waits is told, and nothing is counted up"
    publishing.cancel()
