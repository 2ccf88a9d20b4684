"""The agent's own wiring of a cut: what happened before it was known is told with what happened after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from agent.api_side import ApiSide
from agent.app import Agent
from agent.config import Settings
from agent.kube.credentials import Credentials
from agent.kube.events import EventRecorder
from agent.kube.objects import RecordedObjects
from agent.kube.rest import Api
from agent.kube.tokens import StandaloneTokens
from agent.model.objects import ObjectReference
from agent.model.record import PodRecord
from agent.model.status import Phase, PodStatus
from agent.providers.contract import PodUpdate
from tests.fakes.apiserver import FakeApiServer, running_api_server
from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import eventually


class Clock(FakeClock):
    def since(self, unix_s: float) -> float:
        return self.wall() - unix_s


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with running_api_server() as running:
        yield running


@pytest.fixture
async def api(server: FakeApiServer, tmp_path: Path) -> AsyncIterator[Api]:
    made = Api(await Credentials.load(server.kubeconfig(tmp_path)))
    yield made
    await made.close()


async def test_the_journal_begins_with_the_first_status_that_was_not_taken(
    server: FakeApiServer, api: Api, tmp_path: Path
) -> None:
    clock, store = Clock(), MemoryStore()
    events = EventRecorder(api, "edge", clock)
    side = ApiSide(RecordedObjects(store), StandaloneTokens(), events, api=api)
    agent = Agent(Settings(node_name="edge", root_dir=tmp_path / "root", local_api=None), store, side, clock)
    meta = server.put("pods", "web", "default")["metadata"]
    record = PodRecord.decode(msgspec.json.encode({"metadata": meta, "spec": {}}))
    about = ObjectReference.of(record.pod)
    publisher = agent._publisher
    assert publisher is not None
    publishing = asyncio.ensure_future(publisher.run())
    await asyncio.sleep(0)

    def becomes(phase: Phase) -> None:
        agent._publish(PodUpdate(record, PodStatus(phase=phase)))

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
    api.link.answered(0.0)  # the process' own gauges read it after the test

    told = [(event.message, event.first_at - clock.wall()) for event in events.backlog if event.reason != "First"]
    assert told == [
        ("phase Pending to Running", -15.0),
        ("phase Running to Failed", -10.0),
        ("x", -5.0),
        ("phase Failed to Succeeded", 0.0),
    ]
