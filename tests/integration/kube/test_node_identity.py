"""The API server's side with a true node identity against a real API server: Node authorizer and NodeRestriction on."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.errors import Conflict, Forbidden, NotFound
from agent.kube.events import EventRecorder
from agent.kube.objects import ReferencedObjects
from agent.kube.pods_api import PodsApi
from agent.kube.tokens import ServiceAccountTokens
from agent.kube.watch import Disconnected, Listed, Removed, Resumed, Upserted, list_watch
from agent.model.objects import ObjectKey, ObjectReference, Service
from agent.model.pod import decode_pod
from hack.control_plane import ControlPlane
from tests.fakes.store import MemoryStore
from tests.integration.kube.conftest import NODE, Cluster

MINE = f"spec.nodeName={NODE}"


class House:
    def __init__(self, cluster: Cluster) -> None:
        self.store = MemoryStore()
        self.woken: asyncio.Queue[str] = asyncio.Queue()
        self.objects = ReferencedObjects(cluster.node, self.store, self.woken.put_nowait, SystemClock())


@pytest.fixture
async def house(cluster: Cluster) -> AsyncIterator[House]:
    made = House(cluster)
    task = asyncio.ensure_future(made.objects.run())
    await asyncio.sleep(0)
    yield made
    task.cancel()
    await asyncio.wait([task])


async def soon(awaitable: Any) -> Any:
    async with asyncio.timeout(60):
        return await awaitable


async def test_pods_of_this_node_are_listed_and_watched(cluster: Cluster) -> None:
    await cluster.pod("before")
    async with aclosing(list_watch(cluster.node, "/api/v1/pods", MINE)) as events:
        listed = await soon(anext(events))
        assert isinstance(listed, Listed)
        pods = [decode_pod(item.raw) for item in listed.items]
        assert "before" in [pod.metadata.name for pod in pods]
        assert all(json.loads(item.raw)["kind"] == "Pod" for item in listed.items)
        made = await cluster.pod("after")
        upserted = await soon(anext(events))
        assert isinstance(upserted, Upserted)
        assert upserted.object.meta.uid == made["metadata"]["uid"]
        await PodsApi(cluster.node).delete_pod(cluster.namespace, "after", made["metadata"]["uid"])
        seen = await soon(anext(events))
        while not isinstance(seen, Removed):
            seen = await soon(anext(events))
        assert seen.object.meta.name == "after"


async def test_what_changed_while_the_api_server_was_away_is_seen_after_it(
    cluster: Cluster, control_plane: ControlPlane
) -> None:
    async with aclosing(list_watch(cluster.node, "/api/v1/pods", MINE)) as events:
        await soon(anext(events))
        task = asyncio.ensure_future(anext(events))
        await cluster.pod("here")
        assert isinstance(await soon(task), Upserted)
        task = asyncio.ensure_future(anext(events))
        await asyncio.to_thread(control_plane.cut_off)
        try:
            assert isinstance(await soon(task), Disconnected)
        finally:
            await asyncio.to_thread(control_plane.reconnect)
        seen = await soon(anext(events))
        assert isinstance(seen, Resumed | Listed)
        pod = await cluster.pod("later")
        while not isinstance(seen, Upserted) or seen.object.meta.uid != pod["metadata"]["uid"]:
            seen = await soon(anext(events))
        assert cluster.node.reachable


async def test_a_status_patch_keeps_what_is_not_ours(cluster: Cluster) -> None:
    pod = await cluster.pod("web")
    uid = pod["metadata"]["uid"]
    pods = PodsApi(cluster.node)
    gate = {"status": {"conditions": [{"type": "example.com/gate", "status": "True"}]}}
    path = f"/api/v1/namespaces/{cluster.namespace}/pods/web/status"
    await cluster.admin.patch(path, json.dumps(gate).encode())

    async def patch(uid: str, **status: Any) -> None:
        await pods.patch_pod_status(
            cluster.namespace, "web", json.dumps({"metadata": {"uid": uid}, "status": status}).encode()
        )

    await patch(
        uid, phase="Running", reason="Was", podIP="10.0.0.9", podIPs=[{"$patch": "replace"}, {"ip": "10.0.0.9"}]
    )
    await patch(uid, reason=None, podIP="10.0.0.8", podIPs=[{"$patch": "replace"}, {"ip": "10.0.0.8"}])
    now = await cluster.read("pods", "web")
    assert now["metadata"]["labels"] == {"app": "test"}
    assert [condition["type"] for condition in now["status"]["conditions"]] == ["example.com/gate"]
    assert now["status"]["podIPs"] == [{"ip": "10.0.0.8"}]
    assert "reason" not in now["status"]
    with pytest.raises(Conflict):
        await patch("00000000-0000-0000-0000-000000000000", phase="Failed")


async def test_a_pod_is_deleted_by_its_uid_only(cluster: Cluster) -> None:
    pod = await cluster.pod("web")
    pods = PodsApi(cluster.node)
    with pytest.raises(Conflict):
        await pods.delete_pod(cluster.namespace, "web", "00000000-0000-0000-0000-000000000000")
    await pods.delete_pod(cluster.namespace, "web", pod["metadata"]["uid"])
    with pytest.raises(NotFound):
        await pods.delete_pod(cluster.namespace, "web", pod["metadata"]["uid"])


async def test_a_referenced_object_is_read_at_once_and_its_change_wakes_the_pod(cluster: Cluster, house: House) -> None:
    await cluster.create("configmaps", {"metadata": {"name": "settings"}, "data": {"a": "1"}})
    key = ObjectKey("configmaps", cluster.namespace, "settings")
    pod = await cluster.pod("web", envFrom=[{"configMapRef": {"name": "settings"}}])
    house.objects.retain(pod["metadata"]["uid"], [key])
    assert json.loads(await soon(house.objects.get(key)))["data"] == {"a": "1"}
    await cluster.merge("configmaps", "settings", {"data": {"a": "2"}})
    assert await soon(house.woken.get()) == pod["metadata"]["uid"]
    assert json.loads(await house.objects.get(key))["data"] == {"a": "2"}
    assert json.loads(house.store.rows[f"objects/configmaps/{cluster.namespace}/settings"].value)["data"] == {"a": "2"}


async def test_an_object_that_is_missing_is_not_found_and_wakes_the_pod_when_it_comes(
    cluster: Cluster, house: House
) -> None:
    key = ObjectKey("secrets", cluster.namespace, "late")
    pod = await cluster.pod("web", envFrom=[{"secretRef": {"name": "late"}}])
    house.objects.retain(pod["metadata"]["uid"], [key])
    with pytest.raises(NotFound):
        await soon(house.objects.get(key))
    await cluster.create("secrets", {"metadata": {"name": "late"}, "stringData": {"k": "v"}})
    assert await soon(house.woken.get()) == pod["metadata"]["uid"]
    assert json.loads(await house.objects.get(key))["data"] == {"k": "dg=="}


async def test_an_object_that_no_pod_of_the_node_refers_to_is_refused(cluster: Cluster, house: House) -> None:
    await cluster.create("configmaps", {"metadata": {"name": "foreign"}, "data": {"a": "1"}})
    with pytest.raises(Forbidden):
        await soon(house.objects.get(ObjectKey("configmaps", cluster.namespace, "foreign")))


async def test_services_include_the_api_servers_own(cluster: Cluster, house: House) -> None:
    await cluster.create("services", {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})
    found: tuple[Service, ...] = ()
    async with asyncio.timeout(10):
        while len(found) < 2:  # the watch may be a moment behind
            found = await house.objects.services(cluster.namespace)
            await asyncio.sleep(0.01)
    assert [service.metadata.name for service in found] == ["web", "kubernetes"]
    assert all(service.spec.clusterIP for service in found)


async def test_a_token_is_bound_to_its_pod(cluster: Cluster) -> None:
    # A node may ask only for audiences that its pods name.
    token_volume = {"serviceAccountToken": {"path": "token", "audience": "vault"}}
    volume = {"name": "vault", "projected": {"sources": [token_volume]}}
    raw = json.dumps(await cluster.pod("web", [volume])).encode()
    tokens = ServiceAccountTokens(cluster.node, MemoryStore(), SystemClock())
    token = await soon(tokens.token(decode_pod(raw), "vault", 3607))
    claims = token.token.split(".")[1]
    said = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    assert said["aud"] == ["vault"]
    assert said["kubernetes.io"]["pod"]["uid"] == decode_pod(raw).uid
    assert token.expires_at == said["exp"]


async def test_events_are_told_counted_and_forgotten_with_the_namespace(cluster: Cluster) -> None:
    pod = decode_pod(json.dumps(await cluster.pod("web")).encode())
    recorder = EventRecorder(cluster.node, NODE, SystemClock())
    task = asyncio.ensure_future(recorder.run())
    about = ObjectReference.of(pod, "spec.containers{main}")
    recorder.record(about, "Normal", "Pulled", "Container image is present")
    for _ in range(3):
        recorder.record(about, "Warning", "BackOff", "Back-off restarting")
        await soon(recorder.drain())
    found = json.loads(await cluster.admin.get(f"/api/v1/namespaces/{cluster.namespace}/events"))["items"]
    assert {(event["reason"], event["count"], event["type"]) for event in found} == {
        ("Pulled", 1, "Normal"),
        ("BackOff", 3, "Warning"),
    }
    assert {event["involvedObject"]["uid"] for event in found} == {pod.uid}
    assert {(event["source"]["component"], event["source"]["host"]) for event in found} == {("kubelet", NODE)}
    recorder.record(ObjectReference(kind="Pod", name="x", uid="x", namespace="no-such-namespace"), "Normal", "X", "x")
    recorder.record(about, "Normal", "Started", "after a refused one")
    await soon(recorder.drain())
    found = json.loads(await cluster.admin.get(f"/api/v1/namespaces/{cluster.namespace}/events"))["items"]
    assert "Started" in {event["reason"] for event in found}
    task.cancel()
