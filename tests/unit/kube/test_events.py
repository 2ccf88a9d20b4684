from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from loguru import logger

from agent.kube.events import EventRecorder, LoggedEvents
from agent.kube.rest import Api
from agent.model.objects import ObjectReference
from agent.rush import Rush
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.waiting import PATIENCE_S, eventually
from tests.unit.kube.test_tokens import WaitlessClock

WEB = ObjectReference(kind="Pod", name="web", uid="u1", namespace="default", fieldPath="spec.containers{main}")


@pytest.fixture
async def recorder(api: Api) -> AsyncIterator[EventRecorder]:
    made = EventRecorder(api, "edge", WaitlessClock())
    task = asyncio.ensure_future(made.run())
    yield made
    task.cancel()


async def drained(recorder: EventRecorder) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await recorder.drain()


async def test_an_event_is_posted_as_a_kubelet_does(server: FakeApiServer, recorder: EventRecorder) -> None:
    recorder.record(WEB, "Normal", "Started", "Container started")
    await drained(recorder)
    (event,) = server.all("events")
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "web",
        "namespace": "default",
        "uid": "u1",
        "fieldPath": "spec.containers{main}",
    }
    assert event["source"] == {"component": "kubelet", "host": "edge"}
    assert (event["reportingComponent"], event["reportingInstance"]) == ("kubelet", "edge")
    assert (event["type"], event["reason"], event["message"], event["count"]) == (
        "Normal",
        "Started",
        "Container started",
        1,
    )
    assert event["metadata"]["name"].startswith("web.")
    assert event["firstTimestamp"] == event["lastTimestamp"]


async def test_normal_events_let_starts_go_first_and_a_warning_takes_them_along(
    server: FakeApiServer, api: Api
) -> None:
    rush, clock = Rush(), WaitlessClock()
    recorder = EventRecorder(api, "edge", clock, rush=rush)
    task = asyncio.ensure_future(recorder.run())
    rush.join()
    recorder.record(WEB, "Normal", "Created", "Container created")
    before = len(clock.slept)
    await eventually(lambda: len(clock.slept) > before + 3)
    assert server.all("events") == []
    recorder.record(WEB, "Warning", "BackOff", "Back-off restarting failed container")
    await eventually(lambda: recorder.waiting == 0)
    assert [event["reason"] for event in server.all("events")] == ["Created", "BackOff"]

    recorder.record(WEB, "Normal", "Started", "Container started")
    before = len(clock.slept)
    await eventually(lambda: len(clock.slept) > before + 3)
    assert len(server.all("events")) == 2
    rush.leave()
    await eventually(lambda: len(server.all("events")) == 3)
    rush.join()
    recorder.record(WEB, "Normal", "Killing", "Stopping container")
    await drained(recorder)
    assert len(server.all("events")) == 4, "the end waits for nothing"
    task.cancel()


async def test_annotations_are_told_and_an_event_without_any_has_none(
    server: FakeApiServer, recorder: EventRecorder
) -> None:
    recorder.record(WEB, "Warning", "Evicted", "The node was low on resource: memory. ", {"starved_resource": "memory"})
    recorder.record(WEB, "Normal", "Killing", "x")
    await drained(recorder)
    evicted, killing = server.all("events")
    assert evicted["metadata"]["annotations"] == {"starved_resource": "memory"}
    assert "annotations" not in killing["metadata"]


async def test_an_event_of_a_node_is_in_the_default_namespace(server: FakeApiServer, recorder: EventRecorder) -> None:
    recorder.record(ObjectReference(kind="Node", name="edge", uid="edge"), "Normal", "Starting", "x")
    await drained(recorder)
    assert server.all("events")[0]["metadata"]["namespace"] == "default"


async def test_a_repetition_is_a_patch_of_the_count(server: FakeApiServer, recorder: EventRecorder) -> None:
    recorder.record(WEB, "Warning", "BackOff", "again")
    await drained(recorder)
    recorder.record(WEB, "Warning", "BackOff", "again")
    await drained(recorder)
    (event,) = server.all("events")
    assert event["count"] == 2
    assert [request.method for request in server.requests] == ["POST", "PATCH"]


async def test_repetitions_before_the_post_are_one_post(server: FakeApiServer, recorder: EventRecorder) -> None:
    for _ in range(5):
        recorder.record(WEB, "Warning", "BackOff", "again")
    await drained(recorder)
    assert server.all("events")[0]["count"] == 5
    assert len(server.requests) == 1


async def test_an_event_that_the_server_forgot_is_said_anew_with_its_count(
    server: FakeApiServer, recorder: EventRecorder
) -> None:
    recorder.record(WEB, "Warning", "BackOff", "again")
    await drained(recorder)
    server.remove("events", server.all("events")[0]["metadata"]["name"])
    recorder.record(WEB, "Warning", "BackOff", "again")
    await drained(recorder)
    assert server.all("events")[0]["count"] == 2


async def test_events_wait_for_the_server_and_keep_their_order(server: FakeApiServer, recorder: EventRecorder) -> None:
    server.fail(503, times=3)
    for reason in ("Pulling", "Pulled", "Created"):
        recorder.record(WEB, "Normal", reason, reason)
    await drained(recorder)
    assert [event["reason"] for event in server.all("events")] == ["Pulling", "Pulled", "Created"]


async def test_a_post_whose_answer_was_lost_is_not_there_twice(server: FakeApiServer, recorder: EventRecorder) -> None:
    fault = server.fail(503)
    recorder.record(WEB, "Normal", "Pulled", "x")
    while fault.times:  # noqa: ASYNC110
        await asyncio.sleep(0)
    # The server had stored it and died before it answered.
    name = server.requests[-1].body["metadata"]["name"]
    server.put("events", name, reason="Pulled")
    await drained(recorder)
    assert [event["metadata"]["name"] for event in server.all("events")] == [name]


async def test_a_refused_event_does_not_hold_the_next_one(server: FakeApiServer, recorder: EventRecorder) -> None:
    server.fail(403)
    server.fail(404)
    for reason in ("One", "Two", "Three"):
        recorder.record(WEB, "Normal", reason, reason)
    await drained(recorder)
    assert [event["reason"] for event in server.all("events")] == ["Three"]


def test_standalone_the_log_is_the_reader() -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{extra[pod]} {message}")
    LoggedEvents().record(WEB, "Warning", "Failed", "no image")
    logger.remove(sink)
    assert [line.strip() for line in lines] == ["default/web Failed: no image"]
