from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

import pytest
from loguru import logger

from agent.kube import watch
from agent.kube.rest import Api
from agent.kube.watch import Disconnected, Listed, Removed, Resumed, Upserted, WatchEvent, list_watch
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.waiting import PATIENCE_S, eventually

PODS = "/api/v1/pods"
Start = Callable[..., AsyncGenerator[WatchEvent]]


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
async def start(api: Api, waits: list[float]) -> AsyncIterator[Start]:
    """Starts a list_watch whose waits are noted and take no time."""

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0.001)

    opened: list[AsyncGenerator[WatchEvent]] = []

    def begin(path: str = PODS, field_selector: str = "") -> AsyncGenerator[WatchEvent]:
        opened.append(list_watch(api, path, field_selector, sleep=sleep))
        return opened[-1]

    yield begin
    for generator in opened:
        await generator.aclose()


async def soon(events: AsyncGenerator[WatchEvent]) -> WatchEvent:
    async with asyncio.timeout(PATIENCE_S):
        return await anext(events)


async def watching(
    server: FakeApiServer, events: AsyncGenerator[WatchEvent], count: int = 1
) -> asyncio.Task[WatchEvent]:
    """The task of the next event, once the server has the watch."""
    task = asyncio.ensure_future(anext(events))
    await eventually(lambda: server.open_watches >= count)
    return task


async def test_first_the_list_then_each_change(server: FakeApiServer, start: Start) -> None:
    server.put("pods", "one")
    events = start()
    listed = await soon(events)
    assert isinstance(listed, Listed)
    assert [item.meta.name for item in listed.items] == ["one"]
    server.put("pods", "two")
    server.put("pods", "two", status={"phase": "Running"})
    server.remove("pods", "one")
    seen = [await soon(events) for _ in range(3)]
    assert [type(event) for event in seen] == [Upserted, Upserted, Removed]
    assert isinstance(seen[1], Upserted)
    assert json.loads(seen[1].object.raw)["status"] == {"phase": "Running"}


async def test_listed_objects_say_their_kind_as_watched_ones_do(server: FakeApiServer, start: Start) -> None:
    server.put("pods", "one", spec={"x": "}\n{"})
    listed = await soon(start())
    assert isinstance(listed, Listed)
    raw = json.loads(listed.items[0].raw)
    assert (raw["kind"], raw["apiVersion"], raw["spec"]) == ("Pod", "v1", {"x": "}\n{"})


async def test_a_list_in_pages_is_one_list(server: FakeApiServer, start: Start) -> None:
    server.page_limit = 2
    for number in range(5):
        server.put("pods", f"p{number}")
    listed = await soon(start())
    assert isinstance(listed, Listed)
    assert len(listed.items) == 5
    assert len(server.seen("GET")) == 3


async def test_selectors_go_to_the_server(server: FakeApiServer, start: Start) -> None:
    server.put("pods", "mine", spec={"nodeName": "edge"})
    server.put("pods", "other", spec={"nodeName": "elsewhere"})
    listed = await soon(start(field_selector="spec.nodeName=edge"))
    assert isinstance(listed, Listed)
    assert [item.meta.name for item in listed.items] == ["mine"]


async def test_one_object_is_watched_without_bookmarks_and_many_with_them(api: Api, server: FakeApiServer) -> None:
    for selector, bookmarks in (("metadata.name=web", None), ("spec.nodeName=edge-1", "true")):
        server.requests.clear()
        async with aclosing(list_watch(api, PODS, selector)) as events:
            assert isinstance(await soon(events), Listed)
            following = asyncio.create_task(anext(events))
            await eventually(lambda: any(request.is_watch for request in server.requests))
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        [watch] = [request for request in server.requests if request.is_watch]
        assert watch.query.get("allowWatchBookmarks") == bookmarks


async def test_an_idle_end_is_watched_on_from_the_last_change_and_not_said(
    server: FakeApiServer, start: Start, waits: list[float]
) -> None:
    events = start()
    await soon(events)
    task = await watching(server, events)
    server.put("pods", "one")
    version = server.get("pods", "one")
    assert isinstance(await task, Upserted)
    task = await watching(server, events)
    server.end_watches()
    server.put("pods", "two")
    found = await task
    assert isinstance(found, Upserted)
    assert found.object.meta.name == "two"
    assert version is not None
    watches = [request for request in server.requests if request.is_watch]
    assert watches[-1].query["resourceVersion"] == version["metadata"]["resourceVersion"]
    assert waits == []


async def test_a_bookmark_moves_the_version_to_watch_on_from(server: FakeApiServer, start: Start) -> None:
    events = start()
    await soon(events)
    task = await watching(server, events)
    server.bookmark()
    server.end_watches()
    await eventually(lambda: len([request for request in server.requests if request.is_watch]) == 2)
    first, second = [int(r.query["resourceVersion"]) for r in server.requests if r.is_watch]
    assert second == first + 1
    server.put("pods", "one")
    assert isinstance(await task, Upserted)


async def test_a_version_too_old_is_answered_by_a_new_list(server: FakeApiServer, start: Start) -> None:
    events = start()
    await soon(events)
    task = await watching(server, events)
    server.put("pods", "missed")
    await task
    task = await watching(server, events)
    server.compact()
    server.end_watches()
    relisted = await task
    assert isinstance(relisted, Listed)
    assert [item.meta.name for item in relisted.items] == ["missed"]


async def test_gone_within_the_stream_is_answered_by_a_new_list_too(server: FakeApiServer, start: Start) -> None:
    events = start()
    await soon(events)
    task = await watching(server, events)
    server.say(b'{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old","reason":"Expired"}}\n')
    assert isinstance(await task, Listed)


async def test_gone_again_and_again_is_waited_for(server: FakeApiServer, start: Start, waits: list[float]) -> None:
    server.fail(410, times=4, matches=lambda request: request.is_watch)
    events = start()
    seen = [type(await soon(events)) for _ in range(5)]
    assert seen == [Listed, Listed, Disconnected, Listed, Disconnected]
    assert isinstance(await soon(events), Listed)
    assert len(waits) == 2


async def test_a_cut_connection_is_said_once_and_the_watch_resumes(
    server: FakeApiServer, start: Start, waits: list[float]
) -> None:
    events = start()
    await soon(events)
    task = await watching(server, events)
    server.fail(0, times=3)
    server.say(b'{"type":"ADD')
    server.end_watches()
    assert isinstance(await task, Disconnected)
    assert isinstance(await soon(events), Resumed)
    server.put("pods", "one")
    assert isinstance(await soon(events), Upserted)
    assert len(waits) >= 2
    assert all(wait <= 0.2 * 2**at for at, wait in enumerate(waits))


async def test_changes_during_a_cut_are_not_missed(server: FakeApiServer, start: Start) -> None:
    events = start()
    await soon(events)
    task = await watching(server, events)
    await server.stop()
    assert isinstance(await task, Disconnected)
    server.put("pods", "meanwhile")
    await server.start()
    assert isinstance(await soon(events), Resumed)
    found = await soon(events)
    assert isinstance(found, Upserted)
    assert found.object.meta.name == "meanwhile"


async def test_waits_grow_to_the_cap_and_end_never(server: FakeApiServer, start: Start, waits: list[float]) -> None:
    server.fail(503, times=12)
    events = start()
    assert isinstance(await soon(events), Disconnected)
    assert isinstance(await soon(events), Listed)
    assert len(waits) == 12
    assert 5.0 <= waits[-1] <= 10.0
    assert waits[0] <= 0.2


async def test_a_servers_wish_lengthens_the_wait(server: FakeApiServer, start: Start, waits: list[float]) -> None:
    server.fail(429, headers={"Retry-After": "30"})
    events = start()
    await soon(events)
    await soon(events)
    assert waits == [30.0]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{}",
        b"[]",
        b'{"kind":"Status","apiVersion":"v1","metadata":{}}',
        b'{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}',
        b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[{}]}',
        b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[',
        b"<html>login</html>",
    ],
)
async def test_an_answer_that_is_no_list_is_never_an_empty_list(
    server: FakeApiServer, start: Start, answer: bytes
) -> None:
    server.put("pods", "one")
    server.fail(200, body=answer)
    events = start()
    assert isinstance(await soon(events), Disconnected)
    listed = await soon(events)
    assert isinstance(listed, Listed)
    assert len(listed.items) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"nonsense\n",
        b'{"type":"ADDED"}\n',
        b'{"type":"NEW","object":{"metadata":{}}}\n',
        b'{"type":"ADDED","object":[]}\n',
        b'{"type":"DELETED","object":{"metadata":{"name":"one"}}}\n',
        b'{"type":"ADDED","object":{"metadata":{"name":"one","uid":"u","x":"\xff"}}}\n',
        b'{"type":"ADDED","object":{"metadata":{"name":"o\n',
    ],
)
async def test_a_broken_line_breaks_the_stream_not_the_agent(
    server: FakeApiServer, start: Start, garbage: bytes
) -> None:
    events = start()
    await soon(events)
    task = await watching(server, events)
    server.say(garbage)
    assert isinstance(await task, Disconnected)
    assert isinstance(await soon(events), Resumed)


async def test_a_server_that_is_there_and_fails_is_said_once_and_its_return_too(
    server: FakeApiServer, start: Start
) -> None:
    said: list[str] = []
    sink = logger.add(said.append, level="INFO", format="{message}")
    for status in (500, 429, 401):
        server.fail(status, times=20)
    events = start()
    assert isinstance(await soon(events), Disconnected)
    assert isinstance(await soon(events), Listed)
    server.put("pods", "one")
    assert isinstance(await soon(events), Upserted)
    logger.remove(sink)
    # One for what may pass by itself, one for what somebody must mend.
    assert [line.partition(":")[0] for line in said if "cannot watch" in line] == [
        "cannot watch /api/v1/pods, so what is known of it stays as it is"
    ] * 2
    assert [line for line in said if "again" in line] == ["watching /api/v1/pods again\n"]


async def test_an_error_event_other_than_gone_keeps_the_version(server: FakeApiServer, start: Start) -> None:
    events = start()
    await soon(events)
    task = await watching(server, events)
    server.say(b'{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd"}}\n')
    assert isinstance(await task, Disconnected)
    assert isinstance(await soon(events), Resumed)


async def test_a_line_longer_than_any_buffer_is_read(server: FakeApiServer, start: Start) -> None:
    events = start()
    await soon(events)
    server.put("pods", "big", data="x" * 3_000_000)
    found = await soon(events)
    assert isinstance(found, Upserted)
    assert len(found.object.raw) > 3_000_000


async def test_several_events_in_one_piece_and_one_event_in_several(server: FakeApiServer, start: Start) -> None:
    events = start()
    await soon(events)
    first = await watching(server, events)
    line = b'{"type":"ADDED","object":{"metadata":{"name":"%d","uid":"u"}}}\n'
    server.say(line % 1 + line % 2 + (line % 3)[:20])
    await asyncio.sleep(0.01)
    server.say((line % 3)[20:] + b"\n\n")
    seen = [await first, await soon(events), await soon(events)]
    assert [event.object.meta.name for event in seen if isinstance(event, Upserted)] == ["1", "2", "3"]


async def test_a_server_that_ends_watches_at_once_is_not_hammered(
    server: FakeApiServer, start: Start, waits: list[float]
) -> None:
    server.fail(200, times=5, matches=lambda request: request.is_watch, body=b"")
    events = start()
    await soon(events)
    assert isinstance(await soon(events), Disconnected)
    await soon(events)
    assert waits


async def test_after_many_refusals_the_list_is_made_anew(server: FakeApiServer, start: Start) -> None:
    """As after a restore from a backup, when our resourceVersion lies in the future."""
    events = start()
    await soon(events)
    task = await watching(server, events)
    server.fail(504, times=watch.RELIST_AFTER_FAILURES, matches=lambda request: request.is_watch)
    server.end_watches()
    server.say(b"x")
    assert isinstance(await task, Disconnected)
    seen = await soon(events)
    while isinstance(seen, Resumed | Disconnected):
        seen = await soon(events)
    assert isinstance(seen, Listed)


async def test_closing_the_iterator_closes_the_watch(server: FakeApiServer, start: Start) -> None:
    async with aclosing(start()) as events:
        await soon(events)
        task = await watching(server, events)
        server.put("pods", "one")
        await task
    await eventually(lambda: not server.open_watches)
