"""The API server's word becomes orders; a list alone ends no pod: each that it lacks is asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

import pytest
from loguru import logger

from agent.kube.credentials import Credentials
from agent.kube.rest import Api
from agent.model.record import Origin, PodRecord
from agent.pods.absent import AT_A_TIME
from agent.pods.desired import PREFIX, DesiredChange, DesiredPods
from agent.pods.sources import DOUBT_MAXIMUM_S, follow_api
from agent.store.base import Put
from tests.fakes.apiserver import FakeApiServer, Request, running_api_server
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import eventually

EMPTY = json.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}).encode()


class World:
    """A node that ran two pods of the API server before the agent was started again."""

    def __init__(self, server: FakeApiServer, api: Api) -> None:
        self.server, self.api = server, api
        self.changes: list[DesiredChange] = []
        self.waits: list[float] = []
        self.store = MemoryStore()
        self.desired = DesiredPods(self.store, self.changes.append)
        self.mirrors: dict[str, str] = {}

    async def begin(
        self, tasks: asyncio.TaskGroup, *, recalled: bool, gone: Sequence[str], anew: Sequence[str]
    ) -> list[asyncio.Task[None]]:
        for name in ("one", "two"):
            self.server.put("pods", name, spec={"nodeName": "n"})
        if recalled:
            pods = [PodRecord.decode(json.dumps(pod).encode()) for pod in self.server.all("pods")]
            await self.store.batch([Put(f"{PREFIX}{Origin.API}/{pod.uid}", pod.raw) for pod in pods])
        for name in gone:
            self.server.remove("pods", name)
        for name in anew:
            self.server.put("pods", name, spec={"nodeName": "n"})
        await self.desired.load()
        self.changes.clear()
        return [
            tasks.create_task(self.desired.run()),
            tasks.create_task(follow_api(self.api, "n", self.desired, self, sleep=self.sleep)),
        ]

    # ------------------------------------------------------------ who keeps mirrors

    def listed(self, mirrors: Iterable[PodRecord]) -> None:
        self.mirrors = {}
        for mirror in mirrors:
            self.seen(mirror)

    def seen(self, mirror: PodRecord) -> None:
        self.mirrors[mirror.uid] = mirror.pod.metadata.name

    def removed(self, uid: str) -> None:
        self.mirrors.pop(uid, None)

    def listing(self, *names: str, more: str = "") -> bytes:
        """A list of these pods; one that the server does not have is made up."""
        meta = {"namespace": "default", "creationTimestamp": None}
        items = [
            self.server.get("pods", name) or {"metadata": {**meta, "name": name, "uid": f"u-{name}"}, "spec": {}}
            for name in names
        ]
        metadata = {"resourceVersion": "1", "continue": more}
        return json.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}).encode()

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)

    @property
    def names(self) -> list[str]:
        return sorted(record.pod.metadata.name for record in self.desired.all())

    @property
    def taken_away(self) -> list[str]:
        return [change.was.pod.metadata.name for change in self.changes if change.record is None and change.was]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_api_server() as server:
        api = Api(await Credentials.load(server.kubeconfig(tmp_path)))
        yield World(server, api)
        await api.close()


async def lived(
    world: World,
    holds: Callable[[], object],
    *,
    recalled: bool = True,
    gone: Sequence[str] = (),
    anew: Sequence[str] = (),
) -> None:
    """The record has the pods; `gone` were deleted since, and `anew` made after that."""
    async with asyncio.TaskGroup() as tasks:
        running = await world.begin(tasks, recalled=recalled, gone=gone, anew=anew)
        await eventually(holds)
        for task in running:
            task.cancel()


def is_list(request: Request) -> bool:
    return request.path == "/api/v1/pods" and not request.is_watch


def is_question(request: Request) -> bool:
    return request.method == "PATCH"


async def test_an_empty_list_ends_no_pod_however_often_it_comes(world: World) -> None:
    lie = world.server.fail(200, 9, is_list, body=EMPTY)
    await lived(world, world.desired.verified.is_set)
    assert lie.times == 0
    assert world.taken_away == []
    assert world.names == ["one", "two"]
    assert max(world.waits) == DOUBT_MAXIMUM_S


async def test_one_pod_that_is_there_shows_that_a_list_is_wrong(world: World) -> None:
    for number in range(30):
        world.server.put("pods", f"more-{number}", spec={"nodeName": "n"})
    world.server.fail(200, 1, is_list, body=EMPTY)
    await lived(world, world.desired.verified.is_set)
    assert len(world.server.seen("PATCH")) <= AT_A_TIME


async def test_a_list_that_lacks_some_pods_is_taken_for_those_that_it_has(world: World) -> None:
    world.server.put("pods", "two", spec={"nodeName": "n"})
    world.server.fail(200, -1, is_list, body=world.listing("two", "new"))
    await lived(world, lambda: "new" in world.names and len(world.waits) > 2)
    assert world.names == ["new", "one", "two"]
    assert not world.desired.verified.is_set()


async def test_pods_of_which_the_api_server_says_that_they_do_not_exist_end(world: World) -> None:
    await lived(world, world.desired.verified.is_set, gone=("one", "two"))
    assert sorted(world.taken_away) == ["one", "two"]
    assert world.waits == []


async def test_a_pod_made_anew_under_its_name_replaces_the_one_that_a_list_lacks(world: World) -> None:
    await lived(world, world.desired.verified.is_set, gone=("one",), anew=("one",))
    assert world.taken_away == ["one"]
    assert world.names == ["one", "two"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<html>nothing here</html>"),
        (404, b'{"kind":"Status","reason":"NotFound","code":404,"details":{"kind":"namespaces","name":"default"}}'),
        (404, b'{"kind":"Status","reason":"NotFound","code":404,"details":{"kind":"pods","na'),
        (409, b"busy"),
        (200, b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}'),
        (200, b"<html>welcome</html>"),
        (302, b""),
        (401, None),
        (403, None),
        (429, None),
        (500, None),
        (503, None),
    ],
)
async def test_no_pod_ends_while_the_question_for_it_has_no_real_answer(
    world: World, status: int, body: bytes | None
) -> None:
    said: list[str] = []
    sink = logger.add(said.append, level="WARNING", format="{message}")
    # A node may not read a pod that is gone.
    world.server.fail(status, -1, is_question, body=body)
    world.server.fail(403, -1, lambda request: "/pods/" in request.path and request.method == "GET")
    await lived(world, lambda: len(world.waits) > 4, gone=("one", "two"))
    logger.remove(sink)
    assert world.taken_away == []
    assert not world.desired.verified.is_set()
    assert len([line for line in said if "is not believed" in line]) == 1


async def test_nothing_is_verified_while_a_list_cannot_be_had(world: World) -> None:
    world.server.fail(503, -1, is_list)
    await lived(world, lambda: len(world.waits) > 4)
    assert not world.desired.verified.is_set()
    assert world.names == ["one", "two"]


@pytest.mark.parametrize(
    "answer",
    [
        b'{"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}',
        b'{"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}',
        b'{"kind": "Status", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}}',
        b'{"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [{"metadata": {}}]}',
        b'{"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [],"x": "\xff"}',
        b"<html>welcome</html>",
        b"",
    ],
)
async def test_what_is_no_list_ends_no_pod(world: World, answer: bytes) -> None:
    world.server.fail(200, 3, is_list, body=answer)
    await lived(world, world.desired.verified.is_set)
    assert world.taken_away == []
    assert world.server.seen("PATCH") == []


@pytest.mark.parametrize(
    "second",
    [
        b"",
        b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"99999"},"items":[]}',
        b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1',
    ],
)
async def test_a_list_that_breaks_off_after_its_first_page_ends_no_pod(world: World, second: bytes) -> None:
    world.server.page_limit = 1
    broken = world.server.fail(200, 2, lambda request: is_list(request) and "continue" in request.query, body=second)
    await lived(world, world.desired.verified.is_set)
    assert broken.times == 0
    assert world.taken_away == []
    assert world.server.seen("PATCH") == []


async def test_a_first_page_that_comes_again_and_again_is_no_list(world: World) -> None:
    again = world.listing("one", more="1")
    world.server.fail(200, 2, is_list, body=again)
    await lived(world, world.desired.verified.is_set)
    assert world.taken_away == []


async def test_an_empty_list_is_taken_at_once_where_no_pod_is_known(world: World) -> None:
    world.server.fail(200, 1, is_list, body=EMPTY)
    await lived(world, world.desired.verified.is_set, recalled=False)
    assert world.waits == []
    assert world.server.seen("PATCH") == []


async def test_mirror_pods_are_never_desired_and_go_to_who_keeps_them(world: World) -> None:
    mirror = {"kubernetes.io/config.mirror": "h"}
    world.server.put("pods", "web-n", metadata={"annotations": mirror}, spec={"nodeName": "n"})
    async with asyncio.TaskGroup() as tasks:
        running = await world.begin(tasks, recalled=False, gone=(), anew=())
        await eventually(lambda: list(world.mirrors.values()) == ["web-n"])
        world.server.put("pods", "late-n", metadata={"annotations": mirror}, spec={"nodeName": "n"})
        await eventually(lambda: sorted(world.mirrors.values()) == ["late-n", "web-n"])
        world.server.remove("pods", "web-n")
        await eventually(lambda: list(world.mirrors.values()) == ["late-n"])
        assert world.names == ["one", "two"]
        for task in running:
            task.cancel()
