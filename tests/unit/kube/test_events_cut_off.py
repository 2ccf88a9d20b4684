"""Events while the API server is away: in the record, and told after its return."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.kube.events import EventRecorder
from agent.kube.rest import Api
from agent.model.objects import ObjectReference
from agent.model.status import timestamp
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.store import MemoryStore
from tests.unit.kube.test_tokens import WaitlessClock

WEB = ObjectReference(kind="Pod", name="web", uid="u1", namespace="default", fieldPath="spec.containers{main}")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_waited_is_told_in_order_with_its_own_times_also_by_the_next_agent(
    server: FakeApiServer, api: Api
) -> None:
    store, clock = MemoryStore(), WaitlessClock()
    api.link.lost()
    first = EventRecorder(api, "edge", clock, store)
    server.fail(503, times=100_000)
    task = asyncio.ensure_future(first.run())
    began = clock.wall()
    for number in range(3):
        first.record(WEB, "Normal", f"R{number}", "x")
        await clock.advance(60)
    first.record(WEB, "Normal", "R0", "x")
    await until(lambda: len([key for key in store.rows if key.startswith("journal/")]) == 3)
    task.cancel()
    await asyncio.wait([task])

    server.faults.clear()
    second = EventRecorder(api, "edge", clock, store)
    second.record(WEB, "Normal", "R3", "x")
    task = asyncio.ensure_future(second.run())
    await until(lambda: len(server.all("events")) == 4)
    await until(lambda: not [key for key in store.rows if key.startswith("journal/")])
    task.cancel()
    told = server.all("events")
    assert [(event["reason"], event["count"]) for event in told] == [("R0", 2), ("R1", 1), ("R2", 1), ("R3", 1)]
    assert [event["firstTimestamp"] for event in told] == [timestamp(began + 60 * n) for n in range(4)]
    assert told[0]["lastTimestamp"] == timestamp(began + 180)


async def test_while_the_server_answers_nothing_goes_to_the_disk(server: FakeApiServer, api: Api) -> None:
    store = MemoryStore()
    recorder = EventRecorder(api, "edge", WaitlessClock(), store)
    task = asyncio.ensure_future(recorder.run())
    recorder.record(WEB, "Normal", "Started", "x")
    async with asyncio.timeout(30):
        await recorder.drain()
    task.cancel()
    await asyncio.wait([task])
    assert len(server.all("events")) == 1
    assert store.rows == {}
