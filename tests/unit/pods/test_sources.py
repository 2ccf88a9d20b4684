"""The API server's word becomes orders; an empty list is no word until it is said twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest

from agent.kube.credentials import Credentials
from agent.kube.rest import Api
from agent.model.record import Origin, PodRecord
from agent.pods.desired import PREFIX, DesiredChange, DesiredPods
from agent.pods.sources import CONFIRM_EMPTY_S, follow_api
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
        self.asked_twice = asyncio.Event()
        self.store = MemoryStore()
        self.desired = DesiredPods(self.store, self.changes.append)
        self.mirrors: dict[str, str] = {}

    async def begin(self, tasks: asyncio.TaskGroup, *, recalled: bool = True) -> list[asyncio.Task[None]]:
        for name in ("one", "two"):
            self.server.put("pods", name, spec={"nodeName": "n"})
        if recalled:
            pods = [PodRecord.decode(json.dumps(pod).encode()) for pod in self.server.all("pods")]
            await self.store.batch([Put(f"{PREFIX}{Origin.API}/{pod.uid}", pod.raw) for pod in pods])
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


async def lived(world: World, holds: Callable[[], object], *, recalled: bool = True) -> None:
    async with asyncio.TaskGroup() as tasks:
        running = await world.begin(tasks, recalled=recalled)
        await eventually(holds)
        for task in running:
            task.cancel()


def is_list(request: Request) -> bool:
    return request.path == "/api/v1/pods" and not request.is_watch


async def test_one_empty_list_ends_no_pod(world: World) -> None:
    world.server.fail(200, 1, is_list, body=EMPTY)
    await lived(world, world.desired.verified.is_set)
    assert world.taken_away == []
    assert world.names == ["one", "two"]
    assert CONFIRM_EMPTY_S in world.waits


async def test_an_empty_list_that_a_second_one_confirms_ends_the_pods(world: World) -> None:
    world.server.fail(200, 2, is_list, body=EMPTY)
    await lived(world, world.desired.verified.is_set)
    assert sorted(world.taken_away) == ["one", "two"]


async def test_nothing_is_verified_while_the_second_list_cannot_be_had(world: World) -> None:
    world.server.fail(200, 1, is_list, body=EMPTY)
    world.server.fail(503, -1, is_list)
    await lived(world, lambda: len(world.waits) > 4)
    assert not world.desired.verified.is_set()
    assert world.names == ["one", "two"]


async def test_what_is_no_list_ends_no_pod(world: World) -> None:
    world.server.fail(200, 1, is_list, body=b'{"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}')
    world.server.fail(200, 1, is_list, body=b"<html>welcome</html>")
    await lived(world, world.desired.verified.is_set)
    assert world.taken_away == []


async def test_an_empty_list_is_taken_at_once_where_no_pod_is_known(world: World) -> None:
    world.server.fail(200, 1, is_list, body=EMPTY)
    await lived(world, world.desired.verified.is_set, recalled=False)
    assert CONFIRM_EMPTY_S not in world.waits


async def test_mirror_pods_are_never_desired_and_go_to_who_keeps_them(world: World) -> None:
    mirror = {"kubernetes.io/config.mirror": "h"}
    world.server.put("pods", "web-n", metadata={"annotations": mirror}, spec={"nodeName": "n"})
    async with asyncio.TaskGroup() as tasks:
        running = await world.begin(tasks, recalled=False)
        await eventually(lambda: list(world.mirrors.values()) == ["web-n"])
        world.server.put("pods", "late-n", metadata={"annotations": mirror}, spec={"nodeName": "n"})
        await eventually(lambda: sorted(world.mirrors.values()) == ["late-n", "web-n"])
        world.server.remove("pods", "web-n")
        await eventually(lambda: list(world.mirrors.values()) == ["late-n"])
        assert world.names == ["one", "two"]
        for task in running:
            task.cancel()
