"""An answer counts as this node's cluster's only where it shows that it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from loguru import logger

from agent.errors import Retryable
from agent.kube.cluster import REFUSED_S, UNMARKED_GOOD_S, ClusterGuard, Identity, OwnNode, Verdict, judge
from agent.kube.credentials import Credentials
from agent.kube.rest import Api
from agent.store.base import CLUSTER
from tests.fakes.apiserver import FakeApiServer, Request
from tests.fakes.store import MemoryStore

PODS = "/api/v1/pods"


@pytest.mark.parametrize(
    ("recorded", "seen", "verdict"),
    [
        (Identity("s"), Identity("s"), Verdict.SAME),
        (Identity("s"), Identity("t"), Verdict.OTHER),
        (Identity("s", node="n"), Identity("t", node="n"), Verdict.SAME),
        (Identity("s", node="n"), Identity("s", node="m"), Verdict.SAME),
        (Identity("s", node="n"), Identity("t", node="m"), Verdict.OTHER),
        (Identity("s", node="n"), Identity("t"), Verdict.OTHER),
        (Identity("s", node="n"), Identity(), Verdict.UNKNOWN),
        (Identity("s"), Identity(node="m"), Verdict.UNKNOWN),
        (Identity("s", "k"), Identity("t", "k"), Verdict.SAME),
        (Identity("s", "k", "n"), Identity("s", "l", "n"), Verdict.OTHER),
        (Identity("s", "k"), Identity("s"), Verdict.SAME),
        (Identity("s"), Identity("s", "k"), Verdict.SAME),
    ],
)
def test_a_cluster_is_known_by_what_lives_as_long_as_it_does(
    recorded: Identity, seen: Identity, verdict: Verdict
) -> None:
    assert judge(recorded, seen) is verdict


class World:
    def __init__(self, server: FakeApiServer, folder: Path) -> None:
        self.server = server
        self.store = MemoryStore()
        self.folder = folder
        self.time = 100.0
        self.node_uid = ""
        self.has_pods = True
        self.told: list[str] = []
        self.said: list[tuple[str, str]] = []
        self.guard: ClusterGuard
        self.api: Api
        self.build()

    async def start(self) -> None:
        """The agent, for the first time or again."""
        self.guard = ClusterGuard(
            self.store, OwnNode("/api/v1/nodes/n", lambda: self.node_uid), self._has_pods, lambda: self.time
        )
        self.guard.on_foreign(self.told.append)
        self.api = Api(await Credentials.load(self.server.kubeconfig(self.folder)), self.guard)

    async def restart(self) -> None:
        await self.api.close()
        await self.start()

    async def _has_pods(self) -> bool:
        return self.has_pods

    def build(self) -> None:
        """A cluster, in place of the one that was there."""
        for resource, name in (("services", "kubernetes"), ("namespaces", "kube-system"), ("nodes", "n")):
            if self.server.get(resource, name):
                self.server.remove(resource, name)
            self.server.put(resource, name)
        self.server.flow_schema += "x"

    def uid(self, resource: str, name: str) -> str:
        found = self.server.get(resource, name)
        assert found is not None
        return str(found["metadata"]["uid"])

    def forbid(self, *resources: str) -> None:
        def matches(request: Request) -> bool:
            return request.method == "GET" and request.path.split("/")[-2] in resources

        self.server.fail(403, -1, matches)

    def asked(self, name: str = "services/kubernetes") -> int:
        return len(self.server.seen("GET", name))

    def lines(self, level: str) -> list[str]:
        return [text for found, text in self.said if found == level]

    async def refused(self, why: str = "another cluster") -> None:
        with pytest.raises(Retryable, match=why):
            await self.api.get(PODS)
        self.time += REFUSED_S


@pytest.fixture
async def world(server: FakeApiServer, tmp_path: Path) -> AsyncIterator[World]:
    made = World(server, tmp_path)
    await made.start()
    yield made
    await made.api.close()


@pytest.fixture(autouse=True)
def said(world: World) -> Iterator[None]:
    sink = logger.add(lambda text: world.said.append((text.record["level"].name, text.record["message"])))
    yield
    logger.remove(sink)


async def test_the_first_cluster_is_recorded_and_costs_no_request_after_that(world: World) -> None:
    for _ in range(5):
        await world.api.get(PODS)
        world.time += 1000
    assert world.asked() == 1
    assert CLUSTER in world.store.rows
    await world.restart()
    for _ in range(5):
        await world.api.get(PODS)
    assert world.asked() == 2
    assert len(world.store.writes) == 1
    assert world.api.link.up


async def test_without_the_header_the_service_is_asked_for_now_and_then(world: World) -> None:
    world.server.flow_schema = ""
    for _ in range(10):
        await world.api.get(PODS)
    assert world.asked() == 1
    world.time += UNMARKED_GOOD_S
    await world.api.get(PODS)
    assert world.asked() == 2


@pytest.mark.parametrize("marked", [True, False])
async def test_another_clusters_answers_are_none_and_it_is_said_once(world: World, marked: bool) -> None:
    if not marked:
        world.server.flow_schema = ""
    await world.api.get(PODS)
    recorded = world.store.rows[CLUSTER]
    world.build()
    if not marked:
        world.server.flow_schema = ""
        world.time += UNMARKED_GOOD_S
    for _ in range(5):
        await world.refused()
    assert not world.api.link.up
    with pytest.raises(Retryable):
        async with world.api.stream(PODS, {"watch": "1"}, timeout_s=5):
            pass
    (line,) = world.lines("ERROR")
    assert "edgelet store forget-cluster" in line
    assert world.uid("services", "kubernetes") in line
    assert len(world.told) == 1
    assert world.guard.foreign
    assert world.store.rows[CLUSTER] == recorded


async def test_another_cluster_is_told_from_this_one_after_a_restart_too(world: World) -> None:
    await world.api.get(PODS)
    world.build()
    await world.restart()
    await world.refused()


async def test_its_own_cluster_is_taken_again_as_soon_as_it_answers(world: World) -> None:
    await world.api.get(PODS)
    own = {name: world.server.get(resource, name) for resource, name in (("services", "kubernetes"), ("nodes", "n"))}
    mark = world.server.flow_schema
    assert own["kubernetes"] is not None
    uid = own["kubernetes"]["metadata"]["uid"]
    world.build()
    await world.refused()
    service = world.server.get("services", "kubernetes")
    assert service is not None
    service["metadata"]["uid"], world.server.flow_schema = uid, mark
    await world.api.get(PODS)
    assert world.api.link.up
    assert not world.guard.foreign
    assert world.told[-1] == ""
    assert "this node's own cluster answers again" in world.lines("INFO")


async def test_a_service_that_was_made_anew_does_not_make_another_cluster(world: World) -> None:
    world.forbid("namespaces")
    await world.api.get(PODS)
    world.node_uid = world.uid("nodes", "n")
    world.server.remove("services", "kubernetes")
    world.server.put("services", "kubernetes")
    await world.restart()
    await world.api.get(PODS)
    assert world.lines("ERROR") == []
    # It is known by the new one from now on, whatever becomes of the Node.
    world.server.remove("nodes", "n")
    await world.restart()
    await world.api.get(PODS)


async def test_a_node_that_was_deleted_does_not_make_another_cluster(world: World) -> None:
    world.forbid("namespaces")
    await world.api.get(PODS)
    world.node_uid = world.uid("nodes", "n")
    world.server.remove("nodes", "n")
    await world.restart()
    await world.api.get(PODS)


async def test_kube_system_is_recorded_once_it_may_be_read_and_decides(world: World) -> None:
    world.forbid("namespaces")
    await world.api.get(PODS)
    world.server.faults.clear()
    await world.restart()
    await world.api.get(PODS)
    world.server.remove("services", "kubernetes")
    world.server.put("services", "kubernetes")
    world.server.remove("nodes", "n")
    await world.restart()
    await world.api.get(PODS)
    assert world.lines("ERROR") == []


async def test_a_node_without_pods_goes_with_the_cluster_that_answers(world: World) -> None:
    await world.api.get(PODS)
    world.has_pods = False
    world.build()
    await world.api.get(PODS)
    world.has_pods = True
    await world.restart()
    await world.api.get(PODS)
    assert len([line for line in world.lines("WARNING") if "no pods" in line]) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, None),
        (401, None),
        (429, None),
        (302, b""),
        (404, b"<html>nowhere</html>"),
        (200, b"<html>welcome</html>"),
        (200, b'{"kind":"Service","apiVersion":"v1","metadata":{"name":"kubernetes","uid":"'),
        (200, b'{"kind":"Service","apiVersion":"v1"}'),
        (200, b'{"kind":"Status","apiVersion":"v1","metadata":{}}'),
    ],
)
async def test_while_nobody_can_tell_whose_an_answer_is_it_is_none_and_that_is_said_once(
    world: World, status: int, body: bytes | None
) -> None:
    world.server.fail(status, 3, lambda request: request.path.endswith("services/kubernetes"), body=body)
    for _ in range(3):
        await world.refused("word is not taken")
    assert not world.api.link.up
    assert len([line for line in world.lines("WARNING") if "word is not taken" in line]) == 1
    assert world.told == []
    await world.api.get(PODS)
    assert world.api.link.up


async def test_a_cluster_that_shows_nothing_of_itself_any_more_is_not_believed(world: World) -> None:
    await world.api.get(PODS)
    world.forbid("services", "namespaces", "nodes")
    await world.restart()
    await world.refused("whose cluster")


async def test_a_server_that_never_showed_anything_is_taken_and_that_is_said_once(world: World) -> None:
    world.forbid("services", "namespaces", "nodes")
    world.server.flow_schema = ""
    for _ in range(3):
        await world.api.get(PODS)
        world.time += UNMARKED_GOOD_S
    assert len([line for line in world.lines("WARNING") if "shows nothing" in line]) == 1
    assert CLUSTER not in world.store.rows


async def test_a_broken_row_is_replaced_by_the_cluster_that_answers(world: World) -> None:
    await world.store.put(CLUSTER, b"{")
    await world.api.get(PODS)
    assert world.uid("services", "kubernetes").encode() in world.store.rows[CLUSTER].value


async def test_a_refusal_is_not_asked_for_again_by_each_who_waits(world: World) -> None:
    await world.api.get(PODS)
    world.build()
    before = world.asked()
    for _ in range(20):
        with pytest.raises(Retryable):
            await world.api.get(PODS)
    assert world.asked() == before + 1
