"""A static pod's mirror in the API server: made, kept, replaced and taken away, while the pod itself runs on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.errors import Conflict, EdgeletError, NotFound
from agent.model.pod import Pod
from agent.model.record import PodRecord
from agent.model.status import Phase, PodStatus
from agent.pods.desired import DesiredChange
from agent.pods.mirrors import Mirrors, MirrorUpdate, Step, mirror_manifest, next_step
from agent.pods.static_pods import ManifestSource, static_pods
from tests.fakes.waiting import eventually

NODE = "edge-1"
FILE = Path("/etc/edgelet/manifests/web.yaml")


def static(image: str = "nginx", name: str = "web") -> PodRecord:
    spec = f"{{containers: [{{name: c, image: {image}}}]}}"
    text = f"{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {spec}}}"
    (record,) = static_pods(text.encode(), ManifestSource(FILE), NODE, 1767323045)
    return record


def mirror(of: PodRecord, uid: str = "m-1", *, deleted: bool = False) -> PodRecord:
    raw = json.loads(mirror_manifest(of, NODE, "node-uid"))
    raw["metadata"] |= {"uid": uid} | ({"deletionTimestamp": "2026-01-02T03:04:05Z"} if deleted else {})
    return PodRecord.decode(json.dumps(raw).encode())


def ordinary(named_as: PodRecord) -> PodRecord:
    raw = {"metadata": {"name": named_as.pod.metadata.name, "namespace": "default", "uid": "o"}, "spec": {}}
    return PodRecord.decode(json.dumps(raw).encode())


@dataclass
class Update:
    record: PodRecord
    status: PodStatus
    gone: bool = False
    settle_s: float = 0.0


class Cluster:
    """Keeps pods by name, and says what it was asked for."""

    def __init__(self) -> None:
        self.pods: dict[str, PodRecord] = {}
        self.calls: list[str] = []
        self.faults: list[EdgeletError] = []
        self.made = 0

    async def create_pod(self, namespace: str, body: bytes) -> bytes:
        self._call("create")
        raw = json.loads(body)
        name = raw["metadata"]["name"]
        if name in self.pods:
            raise Conflict(f'pods "{name}" already exists')
        self.made += 1
        raw["metadata"]["uid"] = f"made-{self.made}"
        made = json.dumps(raw).encode()
        self.pods[name] = PodRecord.decode(made)
        return made

    async def delete_pod(self, namespace: str, name: str, uid: str) -> None:
        self._call("delete")
        if name not in self.pods:
            raise NotFound(f'pods "{name}" not found')
        if self.pods[name].uid != uid:
            raise Conflict("the UID in the precondition does not match")
        del self.pods[name]

    def _call(self, what: str) -> None:
        self.calls.append(what)
        if self.faults:
            raise self.faults.pop(0)


class World:
    def __init__(self) -> None:
        self.cluster = Cluster()
        self.published: list[MirrorUpdate] = []
        self.forgotten: list[str] = []
        self.running: set[str] = set()
        self.node_uid = "node-uid"
        self.verified = asyncio.Event()
        self.mirrors = Mirrors(
            self.cluster,
            NODE,
            lambda: self.node_uid,
            self.published.append,
            self.forgotten.append,
            self.running.__contains__,
            self.verified,
        )

    def comes(self, record: PodRecord) -> None:
        self.running.add(record.uid)
        self.mirrors.desired_changed(DesiredChange(record, None))

    def goes(self, record: PodRecord) -> None:
        self.mirrors.desired_changed(DesiredChange(None, record))

    def ended(self, record: PodRecord) -> None:
        self.running.discard(record.uid)
        self.mirrors.told(Update(record, PodStatus(phase=Phase.SUCCEEDED), gone=True))

    def hash(self) -> str:
        pod: Pod = self.cluster.pods["web-edge-1"].pod
        return (pod.metadata.annotations or {})["kubernetes.io/config.mirror"]


@asynccontextmanager
async def running(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("agent.pods.mirrors.RETRY_INITIAL_S", 0.001)
    world = World()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(world.mirrors.run())
        await asyncio.sleep(0)
        yield world
        task.cancel()


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with running(monkeypatch) as world:
        yield world


OLD, NEW = static("nginx:1"), static("nginx:2")


@pytest.mark.parametrize(
    ("pod", "seen", "ending", "sure", "step"),
    [
        (OLD, None, False, False, Step.CREATE),
        (OLD, mirror(OLD), False, True, Step.NOTHING),
        (OLD, mirror(NEW), False, True, Step.DELETE),
        (OLD, mirror(OLD, deleted=True), False, True, Step.DELETE),
        (OLD, None, True, True, Step.NOTHING),
        (OLD, mirror(OLD), True, True, Step.NOTHING),
        (None, mirror(OLD), False, True, Step.DELETE),
        (None, mirror(OLD), False, False, Step.NOTHING),
        (None, None, False, True, Step.NOTHING),
    ],
)
def test_what_is_done_to_a_mirror(
    pod: PodRecord | None, seen: PodRecord | None, ending: bool, sure: bool, step: Step
) -> None:
    assert next_step(pod, seen, ending=ending, sure=sure) is step


def test_a_mirror_has_the_pods_hash_and_the_node_for_its_owner() -> None:
    made = json.loads(mirror_manifest(OLD, NODE, "node-uid"))
    assert made["metadata"]["annotations"]["kubernetes.io/config.mirror"] == OLD.uid
    assert made["metadata"]["annotations"]["kubernetes.io/config.hash"] == OLD.uid
    assert made["metadata"]["annotations"]["kubernetes.io/config.source"] == "file"
    owner = {"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": "node-uid", "controller": True}
    assert made["metadata"]["ownerReferences"] == [owner]
    assert "uid" not in made["metadata"]
    assert made["spec"]["nodeName"] == NODE
    assert {"operator": "Exists", "effect": "NoExecute"} in made["spec"]["tolerations"]


async def test_nothing_is_made_before_the_api_server_has_told_its_mirrors(world: World) -> None:
    world.comes(OLD)
    await asyncio.sleep(0.01)
    assert world.cluster.calls == []
    world.mirrors.listed([])
    await eventually(lambda: world.cluster.calls == ["create"])
    assert world.hash() == OLD.uid


async def test_a_mirror_from_before_a_restart_is_kept(world: World) -> None:
    world.comes(OLD)
    world.mirrors.listed([mirror(OLD)])
    world.verified.set()
    await asyncio.sleep(0.01)
    assert world.cluster.calls == []


async def test_a_deleted_mirror_comes_back_and_the_pod_is_not_asked(world: World) -> None:
    world.mirrors.listed([])
    world.comes(OLD)
    await eventually(lambda: "web-edge-1" in world.cluster.pods)
    first = world.cluster.pods["web-edge-1"]
    world.mirrors.seen(mirror(OLD, first.uid, deleted=True))
    await eventually(lambda: world.cluster.calls == ["create", "delete", "create"])
    assert world.cluster.pods["web-edge-1"].uid != first.uid
    # What the watch still has of the first one is old.
    world.mirrors.seen(mirror(OLD, first.uid, deleted=True))
    world.mirrors.removed(first.uid)
    await asyncio.sleep(0.01)
    assert len(world.cluster.calls) == 3


async def test_the_mirror_of_a_changed_manifest_waits_for_the_end_of_the_old_pod(world: World) -> None:
    world.mirrors.listed([])
    world.comes(OLD)
    await eventually(lambda: "web-edge-1" in world.cluster.pods)
    world.goes(OLD)
    world.comes(NEW)
    await asyncio.sleep(0.01)
    assert world.hash() == OLD.uid
    world.ended(OLD)
    await eventually(lambda: world.hash() == NEW.uid)


async def test_a_removed_manifests_mirror_goes_when_the_pod_has_ended(world: World) -> None:
    world.verified.set()
    world.mirrors.listed([])
    world.comes(OLD)
    await eventually(lambda: "web-edge-1" in world.cluster.pods)
    world.goes(OLD)
    await asyncio.sleep(0.01)
    assert world.cluster.pods
    world.ended(OLD)
    await eventually(lambda: not world.cluster.pods)


async def test_a_manifest_that_is_put_back_while_its_pod_ends_keeps_its_mirror(world: World) -> None:
    world.verified.set()
    world.mirrors.listed([])
    world.comes(OLD)
    await eventually(lambda: "web-edge-1" in world.cluster.pods)
    world.goes(OLD)
    world.comes(OLD)
    world.mirrors.told(Update(OLD, PodStatus(phase=Phase.RUNNING), gone=True))
    await asyncio.sleep(0.01)
    assert world.cluster.calls == ["create"]


async def test_a_mirror_without_a_pod_goes_once_every_source_has_told_its_pods(world: World) -> None:
    lost = mirror(OLD)
    world.cluster.pods["web-edge-1"] = lost
    world.mirrors.listed([lost])
    await asyncio.sleep(0.01)
    assert world.cluster.calls == []
    world.verified.set()
    await eventually(lambda: not world.cluster.pods)


async def test_the_pods_status_is_told_on_its_mirror_and_anew_on_the_next_one(world: World) -> None:
    world.mirrors.listed([])
    world.comes(OLD)
    world.mirrors.told(Update(OLD, PodStatus(phase=Phase.PENDING)))
    await eventually(lambda: world.published)
    world.mirrors.told(Update(OLD, PodStatus(phase=Phase.RUNNING)))
    first = world.cluster.pods.pop("web-edge-1")
    world.mirrors.removed(first.uid)
    await eventually(lambda: len(world.published) == 3)
    told = [(update.record.uid, update.status.phase) for update in world.published]
    assert told == [(first.uid, "Pending"), (first.uid, "Running"), ("made-2", "Running")]
    assert world.forgotten == [first.uid]


async def test_a_name_that_an_ordinary_pod_has_is_tried_again(world: World) -> None:
    world.cluster.pods["web-edge-1"] = ordinary(OLD)
    world.mirrors.listed([])
    world.comes(OLD)
    await eventually(lambda: len(world.cluster.calls) > 1)
    assert world.cluster.pods["web-edge-1"].uid == "o"
    del world.cluster.pods["web-edge-1"]
    await eventually(lambda: world.cluster.pods and world.hash() == OLD.uid)


async def test_a_node_that_is_not_registered_yet_makes_its_mirrors_afterwards(world: World) -> None:
    world.node_uid = ""
    world.mirrors.listed([])
    world.comes(OLD)
    await asyncio.sleep(0.01)
    assert world.cluster.calls == []
    world.node_uid = "node-uid"
    world.mirrors.retry()
    await eventually(lambda: world.cluster.calls == ["create"])
