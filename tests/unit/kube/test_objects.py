from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from agent.errors import Forbidden, NotFound, Retryable
from agent.kube import objects as objects_module
from agent.kube.objects import RecordedObjects, ReferencedObjects
from agent.kube.rest import Api
from agent.model.objects import ObjectKey
from tests.fakes.apiserver import FakeApiServer, Request
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import PATIENCE_S, eventually
from tests.unit.kube.test_tokens import WaitlessClock

KEY = ObjectKey("configmaps", "default", "settings")
ROW = "objects/configmaps/default/settings"


class House:
    """The objects under test with all that is around them."""

    def __init__(self, server: FakeApiServer, api: Api, store: MemoryStore) -> None:
        self.server = server
        self.api = api
        self.store = store
        self.woken: list[str] = []
        self.clock = WaitlessClock()
        self.objects = ReferencedObjects(api, store, self.woken.append, self.clock)

    async def data(self, key: ObjectKey = KEY) -> object:
        async with asyncio.timeout(PATIENCE_S):
            return json.loads(await self.objects.get(key)).get("data")

    def recorded(self) -> object:
        row = self.store.rows.get(ROW)
        return json.loads(row.value)["data"] if row else None

    def watches(self, part: str = "configmaps") -> list[Request]:
        return [request for request in self.server.requests if request.is_watch and part in request.path]

    async def restarted(self) -> House:
        """Another agent with the same record; its run is not started."""
        return House(self.server, self.api, self.store)


@pytest.fixture
async def house(server: FakeApiServer, api: Api) -> AsyncIterator[House]:
    made = House(server, api, MemoryStore())
    task = asyncio.ensure_future(made.objects.run())
    await asyncio.sleep(0)
    yield made
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled(), task.exception()


async def test_an_object_is_in_the_record_before_it_is_handed_on(house: House) -> None:
    house.server.put("configmaps", "settings", data={"a": "1"})
    assert await house.data() == {"a": "1"}
    assert house.recorded() == {"a": "1"}


async def test_a_retained_object_costs_one_list_and_one_watch_however_often_it_is_read(house: House) -> None:
    house.server.put("configmaps", "settings", data={"a": "1"})
    house.objects.retain("pod-1", [KEY])
    house.objects.retain("pod-2", [KEY])
    for _ in range(5):
        assert await house.data() == {"a": "1"}
    await eventually(house.watches)
    requests = house.server.seen("GET", "configmaps")
    assert [request.query["fieldSelector"] for request in requests] == ["metadata.name=settings"] * 2


async def test_a_change_is_recorded_and_wakes_every_pod_that_refers_to_it(house: House) -> None:
    house.server.put("configmaps", "settings", data={"a": "1"})
    house.objects.retain("pod-1", [KEY])
    house.objects.retain("pod-2", [KEY])
    await house.data()
    assert house.woken == []
    house.server.put("configmaps", "settings", data={"a": "2"})
    await eventually(lambda: sorted(house.woken) == ["pod-1", "pod-2"])
    assert house.recorded() == {"a": "2"}
    assert await house.data() == {"a": "2"}


async def test_an_object_that_appears_wakes_the_pod_that_missed_it(house: House) -> None:
    house.objects.retain("pod-1", [KEY])
    with pytest.raises(NotFound, match='configmaps "settings" not found in namespace default'):
        await house.data()
    await eventually(house.watches)
    house.server.put("configmaps", "settings", data={"a": "1"})
    await eventually(lambda: house.woken == ["pod-1"])
    assert await house.data() == {"a": "1"}


async def test_a_deleted_object_leaves_the_record(house: House) -> None:
    house.server.put("configmaps", "settings", data={"a": "1"})
    house.objects.retain("pod-1", [KEY])
    await house.data()
    house.server.remove("configmaps", "settings")
    await eventually(lambda: house.recorded() is None)
    with pytest.raises(NotFound):
        await house.data()


def is_list(request: Request) -> bool:
    return "fieldSelector" in request.query and not request.is_watch


async def test_an_object_that_a_list_lacks_is_asked_for_by_its_name_before_it_is_forgotten(house: House) -> None:
    house.server.put("configmaps", "settings", data={"a": "1"})
    await house.data()
    empty = b'{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}'
    lie = house.server.fail(200, 1, is_list, body=empty)
    house.objects.retain("pod-1", [KEY])
    await eventually(lambda: lie.times == 0 and house.watches())
    assert house.recorded() == {"a": "1"}
    assert await house.data() == {"a": "1"}
    house.server.put("configmaps", "settings", data={"a": "2"})
    await eventually(lambda: house.recorded() == {"a": "2"})


async def test_a_list_without_any_service_does_not_take_them_away(house: House) -> None:
    house.server.put("services", "kubernetes", spec={"clusterIP": "10.96.0.1"})
    assert len(await house.objects.services("default")) == 1
    again = await house.restarted()
    empty = b'{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}'
    lie = house.server.fail(200, 1, lambda request: request.path == "/api/v1/services", body=empty)
    task = asyncio.ensure_future(again.objects.run())
    await eventually(lambda: lie.times == 0)
    assert len(await again.objects.services("default")) == 1
    task.cancel()
    await asyncio.wait([task])


async def test_an_unchanged_object_is_not_written_again(house: House) -> None:
    house.server.put("configmaps", "settings", data={"a": "1"})
    await house.data()
    await house.data()
    again = await house.restarted()
    await again.data()
    assert len([change for change in house.store.writes if change.key == ROW]) == 1


async def test_while_the_server_is_away_the_record_answers(house: House) -> None:
    house.server.put("configmaps", "settings", data={"a": "1"})
    await house.data()
    await house.server.stop()
    again = await house.restarted()
    assert await again.data() == {"a": "1"}


async def test_without_server_and_record_the_caller_may_retry(house: House) -> None:
    await house.server.stop()
    with pytest.raises(Retryable):
        await house.data()


async def test_a_server_that_is_known_to_be_away_is_not_waited_for(house: House) -> None:
    house.server.put("configmaps", "settings", data={"a": "1"})
    await house.data()
    await house.server.stop()
    with pytest.raises(Retryable):
        await house.api.get("/healthz")
    again = await house.restarted()
    before = len(house.server.requests)
    assert await again.data() == {"a": "1"}
    assert len(house.server.requests) == before


async def test_a_silent_server_is_waited_for_only_shortly_when_there_is_a_record(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.server.put("configmaps", "settings", data={"a": "1"})
    await house.data()
    monkeypatch.setattr(objects_module, "FALLBACK_TIMEOUT_S", 0.02)
    house.server.fail(-1, times=99, matches=lambda request: "configmaps" in request.path)
    again = await house.restarted()
    assert await again.data() == {"a": "1"}


async def test_what_changed_during_a_cut_wakes_the_pod_after_it(house: House) -> None:
    house.server.put("configmaps", "settings", data={"a": "1"})
    house.objects.retain("pod-1", [KEY])
    await house.data()
    await eventually(house.watches)
    await house.server.stop()
    house.server.put("configmaps", "settings", data={"a": "2"})
    assert await house.data() == {"a": "1"}
    await house.server.start()
    await eventually(lambda: house.woken == ["pod-1"])
    assert await house.data() == {"a": "2"}


async def test_an_authorizer_that_lags_is_asked_again(house: House) -> None:
    house.server.put("configmaps", "settings", data={"a": "1"})
    house.server.fail(403, times=3, matches=lambda request: "configmaps" in request.path)
    house.objects.retain("pod-1", [KEY])
    assert await house.data() == {"a": "1"}


async def test_a_lasting_refusal_is_raised(house: House) -> None:
    house.server.fail(403, times=99, matches=lambda request: "configmaps" in request.path)
    with pytest.raises(Forbidden):
        await house.data()


async def test_an_immutable_object_is_not_watched(house: House) -> None:
    house.server.put("configmaps", "settings", data={"a": "1"}, immutable=True)
    house.objects.retain("pod-1", [KEY])
    assert await house.data() == {"a": "1"}
    await asyncio.sleep(0.02)
    assert house.watches() == []
    assert await house.data() == {"a": "1"}


async def test_an_object_that_nobody_refers_to_is_let_go(house: House) -> None:
    house.server.put("configmaps", "settings", data={"a": "1"})
    house.objects.retain("pod-1", [KEY])
    house.objects.retain("pod-2", [KEY])
    await house.data()
    await eventually(house.watches)
    open_watches = house.server.open_watches
    house.objects.release("pod-1")
    await asyncio.sleep(0.01)
    assert house.recorded() is not None
    house.objects.release("pod-2")
    await eventually(lambda: house.server.open_watches == open_watches - 1)
    assert house.recorded() is None


async def test_a_pod_that_refers_to_something_else_now_keeps_only_that(house: House) -> None:
    other = ObjectKey("secrets", "default", "key")
    house.server.put("configmaps", "settings", data={"a": "1"})
    house.server.put("secrets", "key", data={"k": "eA=="})
    house.objects.retain("pod-1", [KEY])
    await house.data()
    house.objects.retain("pod-1", [other])
    assert await house.data(other) == {"k": "eA=="}
    await eventually(lambda: house.recorded() is None)
    assert set(house.store.rows) == {"objects/secrets/default/key"}


async def test_a_successor_within_the_linger_takes_the_watch_over(house: House) -> None:
    house.server.put("configmaps", "settings", data={"a": "1"})
    house.objects.retain("pod-1", [KEY])
    await house.data()
    await eventually(house.watches)
    house.objects.release("pod-1")
    house.objects.retain("pod-2", [KEY])
    await asyncio.sleep(0.02)
    assert len(house.watches()) == 1
    assert house.recorded() == {"a": "1"}


async def test_rows_of_pods_that_went_meanwhile_are_removed_on_request(house: House) -> None:
    house.server.put("configmaps", "settings", data={"a": "1"})
    house.objects.retain("pod-1", [KEY])
    await house.data()
    await house.store.put("objects/secrets/default/old", b"{}")
    await house.objects.keep_only_retained()
    assert set(house.store.rows) == {ROW}


async def test_what_was_retained_before_the_run_is_watched_from_then_on(house: House) -> None:
    house.server.put("configmaps", "settings", data={"a": "1"})
    early = await house.restarted()
    early.objects.retain("pod-1", [KEY])
    assert await early.data() == {"a": "1"}
    task = asyncio.ensure_future(early.objects.run())
    await eventually(early.watches)
    house.server.put("configmaps", "settings", data={"a": "2"})
    await eventually(lambda: early.woken == ["pod-1"])
    task.cancel()


async def test_services_are_those_of_the_namespace_and_the_api_servers(house: House) -> None:
    house.server.put("services", "kubernetes", spec={"clusterIP": "10.0.0.1", "ports": [{"port": 443}]})
    house.server.put("services", "web", "shop", spec={"clusterIP": "10.0.0.2"})
    house.server.put("services", "other", "bank", spec={"clusterIP": "10.0.0.3"})
    found = await house.objects.services("shop")
    assert [service.metadata.name for service in found] == ["web", "kubernetes"]
    assert set(house.store.rows) == {"objects/services/default/kubernetes", "objects/services/shop/web"}


async def test_services_follow_the_cluster_and_the_record_follows_them(house: House) -> None:
    house.server.put("services", "kubernetes", spec={"clusterIP": "10.0.0.1"})
    await house.objects.services("shop")
    await eventually(lambda: house.watches("services"))
    house.server.put("services", "web", "shop", spec={"clusterIP": "10.0.0.2"})
    await eventually(lambda: "objects/services/shop/web" in house.store.rows)
    assert len(await house.objects.services("shop")) == 2
    house.server.remove("services", "web", "shop")
    await eventually(lambda: "objects/services/shop/web" not in house.store.rows)
    assert len(await house.objects.services("shop")) == 1


async def test_services_come_from_the_record_while_the_server_is_away(house: House) -> None:
    house.server.put("services", "kubernetes", spec={"clusterIP": "10.0.0.1"})
    house.server.put("services", "web", "shop", spec={"clusterIP": "10.0.0.2"})
    await house.objects.services("shop")
    await house.server.stop()
    again = await house.restarted()
    task = asyncio.ensure_future(again.objects.run())
    async with asyncio.timeout(PATIENCE_S):
        found = await again.objects.services("shop")
    assert [service.spec.clusterIP for service in found] == ["10.0.0.2", "10.0.0.1"]
    task.cancel()


async def test_services_that_were_never_read_are_not_none(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.kube.services.CALL_TIMEOUT_S", 0.02)
    again = await house.restarted()
    with pytest.raises(Retryable, match="have not been read"):
        await again.objects.services("shop")


async def test_a_standalone_node_has_only_its_record() -> None:
    store = MemoryStore()
    await store.put(ROW, b"{}")
    alone = RecordedObjects(store)
    assert await alone.get(KEY) == b"{}"
    with pytest.raises(NotFound, match="standalone"):
        await alone.get(ObjectKey("secrets", "default", "key"))
    assert await alone.services("default") == ()


CLAIM = ObjectKey("persistentvolumeclaims", "default", "data")
VOLUME = ObjectKey("persistentvolumes", "", "pv-1")


async def test_a_claim_is_asked_for_each_time_and_never_watched(house: House) -> None:
    house.objects.retain("pod-1", [CLAIM])
    with pytest.raises(NotFound, match='persistentvolumeclaims "data" not found in namespace default'):
        await house.data(CLAIM)
    house.server.put("persistentvolumeclaims", "data")
    await house.data(CLAIM)
    assert house.server.seen("GET", "persistentvolumeclaims") != []
    assert all(
        "/persistentvolumeclaims/data" in request.path for request in house.server.requests if "persis" in request.path
    )


async def test_a_runtime_class_is_asked_for_in_its_own_group(house: House) -> None:
    house.server.put("runtimeclasses", "gvisor", namespace="", prefix="/apis/node.k8s.io/v1")
    await house.data(ObjectKey("runtimeclasses", "", "gvisor"))
    assert {
        request.path.partition("?")[0] for request in house.server.requests if "runtimeclasses" in request.path
    } == {"/apis/node.k8s.io/v1/runtimeclasses/gvisor"}


async def test_a_claims_volume_is_had_from_the_record_after_a_restart_without_a_network(house: House) -> None:
    house.server.put("persistentvolumes", "pv-1", namespace="")
    house.objects.retain("pod-1", [VOLUME])
    await house.data(VOLUME)
    await house.server.stop()
    again = await house.restarted()
    await again.data(VOLUME)
    again.objects.retain("pod-1", [VOLUME])
    await again.objects.keep_only_retained()
    await again.data(VOLUME)


SIGNER = ObjectKey("clustertrustbundles", "", "", "spec.signerName=x.io/s", "a=1")
CERTIFICATES = "/apis/certificates.k8s.io/v1beta1"


def put_bundle(house: House, name: str, text: str, signer: str = "x.io/s") -> None:
    spec = {"signerName": signer, "trustBundle": text}
    house.server.put("clustertrustbundles", name, "", CERTIFICATES, metadata={"labels": {"a": "1"}}, spec=spec)


async def selected(house: House) -> list[str]:
    async with asyncio.timeout(PATIENCE_S):
        found = json.loads(await house.objects.get(SIGNER))
    return [item["spec"]["trustBundle"] for item in found["items"]]


async def test_a_selection_follows_what_is_put_changed_and_removed(house: House) -> None:
    house.objects.retain("pod-1", [SIGNER])
    assert await selected(house) == []
    await eventually(lambda: house.watches("clustertrustbundles"))
    changes: list[tuple[Callable[[], None], list[str]]] = [
        (lambda: put_bundle(house, "b", "one"), ["one"]),
        (lambda: put_bundle(house, "a", "two"), ["two", "one"]),
        (lambda: put_bundle(house, "b", "three"), ["two", "three"]),
        (lambda: house.server.remove("clustertrustbundles", "a", "", CERTIFICATES), ["three"]),
    ]
    for change, expected in changes:
        house.woken.clear()
        change()
        await eventually(lambda: house.woken == ["pod-1"])
        assert await selected(house) == expected
    (watch, *_) = house.watches("clustertrustbundles")
    assert (watch.query["fieldSelector"], watch.query["labelSelector"]) == ("spec.signerName=x.io/s", "a=1")


async def test_a_selection_is_had_from_the_record_too(house: House) -> None:
    put_bundle(house, "a", "one")
    assert await selected(house) == ["one"]
    await house.server.stop()
    assert await selected(await house.restarted()) == ["one"]


async def test_what_says_how_a_driver_s_volume_comes_is_asked_for_where_it_is_served(house: House) -> None:
    storage = "/apis/storage.k8s.io/v1"
    driver, attachment = ObjectKey("csidrivers", "", "d"), ObjectKey("volumeattachments", "", "csi-1")
    for key in (driver, attachment):
        house.server.put(key.kind, key.name, "", storage)
        house.objects.retain("pod-1", [driver, attachment])
        await house.objects.get(key)
    await eventually(lambda: house.watches("csidrivers"))
    # A node may read the attachments of its volumes, and watch none.
    assert house.watches("volumeattachments") == []
    assert house.server.seen("GET", f"{storage}/volumeattachments/csi-1")
