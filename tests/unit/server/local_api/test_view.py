"""What the node knows, on the wire."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from agent.model.objects import ObjectReference
from agent.model.status import Phase
from tests.unit.server.local_api.conftest import Node, Served, serving

PODS = "/api/v1/namespaces/shop/pods"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


async def test_health_is_for_everybody_and_the_rest_by_token_only(local: Served) -> None:
    async with local.session.get(f"{local.url}/healthz") as response:
        assert (response.status, await response.text()) == (200, "ok")
    async with local.session.get(f"{local.url}{PODS}") as response:
        assert response.status == 401
        assert (await response.json())["reason"] == "Unauthorized"
    assert (await local.ask(PODS, "another"))[0] == 401
    assert (await local.ask(PODS))[0] == 200


async def test_token_and_kubeconfig_are_readable_by_their_owner_alone(local: Served) -> None:
    for name in ("local-api.token", "local-api.kubeconfig"):
        assert stat.S_IMODE((local.root / name).stat().st_mode) == 0o600
    kubeconfig = json.loads((local.root / "local-api.kubeconfig").read_text())
    assert kubeconfig["users"][0]["user"]["token"] == local.token


async def test_the_token_stays_over_restarts(tmp_path: Path, node: Node) -> None:
    async with serving(tmp_path, node) as first:
        token = first.token
    async with serving(tmp_path, node) as second:
        assert second.token == token


async def test_a_pod_is_its_raw_object_with_the_status_of_now(local: Served) -> None:
    local.node.put("web")
    status, pod, _ = await local.ask(f"{PODS}/web")
    assert (status, pod["kind"], pod["apiVersion"]) == (200, "Pod", "v1")
    assert pod["status"]["phase"] == "Running"
    assert pod["spec"]["nodeName"] == "n1"
    status, answer, _ = await local.ask(f"{PODS}/none")
    assert (status, answer["kind"], answer["reason"]) == (404, "Status", "NotFound")


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["api", "db", "web"]),
        ("labelSelector=tier%3Dfront", ["web"]),
        ("labelSelector=tier+in+(front,back)", ["api", "web"]),
        ("labelSelector=tier!%3Dfront", ["api", "db"]),
        ("labelSelector=!tier", ["db"]),
        ("fieldSelector=status.phase%3DPending", ["db"]),
        ("fieldSelector=metadata.name!%3Dweb,spec.nodeName%3Dn1", ["api", "db"]),
    ],
)
async def test_selectors_choose(local: Served, query: str, names: list[str]) -> None:
    local.node.put("web", tier="front")
    local.node.put("api", tier="back")
    local.node.put("db", phase=Phase.PENDING)
    status, found, _ = await local.ask(f"{PODS}?{query}")
    assert status == 200
    assert [item["metadata"]["name"] for item in found["items"]] == names


@pytest.mark.parametrize(
    "query", ["fieldSelector=spec.color%3Dred", "labelSelector=a%3D%3D%3Db", "limit=-1", "continue=x"]
)
async def test_what_cannot_be_read_is_a_bad_request(local: Served, query: str) -> None:
    status, answer, _ = await local.ask(f"{PODS}?{query}")
    assert (status, answer["reason"]) == (400, "BadRequest")


async def test_pages_together_are_the_list(local: Served) -> None:
    for number in range(5):
        local.node.put(f"p{number}")
    names, token, pages = [], "", 0
    while True:
        _, page, _ = await local.ask(f"{PODS}?limit=2&continue={token}")
        names += [item["metadata"]["name"] for item in page["items"]]
        pages += 1
        if not (token := page["metadata"].get("continue", "")):
            break
    assert (names, pages) == ([f"p{number}" for number in range(5)], 3)


async def test_a_watch_from_a_list_tells_each_change_once(local: Served) -> None:
    local.node.put("web", app="a")
    revision = (await local.ask(PODS))[1]["metadata"]["resourceVersion"]
    async with local.watch(f"{PODS}?watch=1&resourceVersion={revision}&labelSelector=app%3Da") as watching:
        local.node.put("api", app="a")
        local.node.put("other", app="b")
        local.server.changed("pods")
        assert await watching.names(1) == [("ADDED", "api")]
        local.node.put("web", phase=Phase.FAILED, app="a")
        local.server.changed("pods")
        kind, pod = await watching.next()
        assert (kind, pod["status"]["phase"]) == ("MODIFIED", "Failed")
        assert int(pod["metadata"]["resourceVersion"]) > int(revision)
        local.node.put("api", app="b")  # leaves the selection
        local.server.changed("pods")
        assert await watching.names(1) == [("DELETED", "api")]
        del local.node.pods["web"]
        local.server.changed("pods")
        assert await watching.names(1) == [("DELETED", "web")]


async def test_changes_between_a_list_and_its_watch_are_told(local: Served) -> None:
    local.node.put("web")
    revision = (await local.ask(PODS))[1]["metadata"]["resourceVersion"]
    local.node.put("api")
    async with local.watch(f"{PODS}?watch=1&resourceVersion={revision}") as watching:
        assert await watching.names(1) == [("ADDED", "api")]


async def test_a_watch_without_a_revision_begins_with_what_is(local: Served) -> None:
    local.node.put("web")
    async with local.watch(f"{PODS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true") as watching:
        assert await watching.names(1) == [("ADDED", "web")]
        kind, mark = await watching.next()
        assert (kind, mark["metadata"]["annotations"]) == ("BOOKMARK", {"k8s.io/initial-events-end": "true"})


async def test_a_revision_of_another_life_is_expired(local: Served) -> None:
    status, answer, _ = await local.ask(f"{PODS}?watch=1&resourceVersion=12")
    assert (status, answer["reason"], answer["code"]) == (410, "Expired", 410)


async def test_a_watch_ends_when_the_client_said(local: Served) -> None:
    async with local.watch(f"{PODS}?watch=1&timeoutSeconds=1") as watching:
        assert await watching.response.content.read() == b""


async def test_recorded_objects_are_shown_and_watched_but_secrets_only_by_setting(tmp_path: Path, node: Node) -> None:
    await node.store.put("objects/configmaps/shop/c", b'{"metadata":{"name":"c","namespace":"shop"},"data":{"a":"1"}}')
    await node.store.put("objects/secrets/shop/s", b'{"metadata":{"name":"s","namespace":"shop"},"data":{"a":"MQ=="}}')
    await node.store.put("objects/services/shop/v", b'{"metadata":{"name":"v","namespace":"shop"},"spec":{}}')
    async with serving(tmp_path, node) as local:
        assert (await local.ask("/api/v1/namespaces/shop/configmaps/c"))[1]["data"] == {"a": "1"}
        assert (await local.ask("/api/v1/services"))[1]["kind"] == "ServiceList"
        assert (await local.ask("/api/v1/namespaces/shop/secrets/s"))[0] == 404
        assert (await local.ask("/api/v1/secrets"))[0] == 404
        async with local.watch("/api/v1/configmaps?watch=1") as watching:
            assert await watching.names(1) == [("ADDED", "c")]
            await node.store.put("objects/configmaps/shop/d", b'{"metadata":{"name":"d","namespace":"shop"}}')
            assert await watching.names(1) == [("ADDED", "d")]
    async with serving(tmp_path, node, local_api_secrets=True) as local:
        assert (await local.ask("/api/v1/namespaces/shop/secrets/s"))[1]["data"] == {"a": "MQ=="}


async def test_events_are_told_and_counted(local: Served) -> None:
    about = ObjectReference(kind="Pod", name="web", namespace="shop", uid="u-web")
    for _ in range(3):
        local.events.record(about, "Warning", "BackOff", "again")
    _, found, _ = await local.ask("/api/v1/events?fieldSelector=involvedObject.name%3Dweb,involvedObject.uid%3Du-web")
    assert [(item["reason"], item["count"]) for item in found["items"]] == [("BackOff", 3)]


async def test_tables_have_the_columns_and_cells_of_kubectl_get(local: Served) -> None:
    local.node.put("web")
    status, table, _ = await local.ask(PODS, accept=TABLE)
    assert (status, table["kind"], table["apiVersion"]) == (200, "Table", "meta.k8s.io/v1")
    names = [(column["name"], column["priority"]) for column in table["columnDefinitions"]]
    assert names[:7] == [
        ("Name", 0), ("Ready", 0), ("Status", 0), ("Restarts", 0), ("Age", 0), ("IP", 1), ("Node", 1)
    ]  # fmt: skip
    assert table["rows"][0]["cells"][:7] == ["web", "0/1", "Running", "0", "<unknown>", "10.1.0.2", "n1"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    local.node.object = {
        "metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/edge": ""}},
        "status": {"conditions": [{"type": "Ready", "status": "False"}], "nodeInfo": {"kubeletVersion": "v1"}},
    }
    _, table, _ = await local.ask("/api/v1/nodes/n1", accept=TABLE)
    assert table["rows"][0]["cells"][:3] == ["n1", "NotReady", "edge"]


async def test_a_table_in_a_watch_names_its_columns_once(local: Served) -> None:
    local.node.put("web")
    local.node.put("api")
    async with local.watch(f"{PODS}?watch=1", accept=TABLE) as watching:
        (_, first), (_, second) = await watching.next(), await watching.next()
    assert (len(first["columnDefinitions"]), len(second["columnDefinitions"])) == (9, 0)
    assert [table["rows"][0]["cells"][0] for table in (first, second)] == ["api", "web"]


async def test_discovery_names_what_is_there(local: Served) -> None:
    _, found, _ = await local.ask("/api/v1")
    assert {"pods", "pods/log", "pods/exec", "nodes"} <= {one["name"] for one in found["resources"]}
    assert "secrets" not in {one["name"] for one in found["resources"]}
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    _, found, headers = await local.ask("/api", accept=accept)
    assert found["apiVersion"] == "apidiscovery.k8s.io/v2"
    assert "as=APIGroupDiscoveryList" in headers["Content-Type"]
    assert (await local.ask("/apis"))[1] == {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}
    assert (await local.ask("/version"))[1]["major"] == "1"


async def test_logs_are_those_of_the_nodes_own_api(local: Served) -> None:
    local.node.put("web")
    status, text, _ = await local.ask(f"{PODS}/web/log?tailLines=5")
    assert (status, text) == (200, "one\ntwo\n")
    assert local.node.logs_asked[0][0] == "shop/web/main"
    assert local.node.logs_asked[0][1].tail_lines == 5
    status, answer, _ = await local.ask(f"{PODS}/none/log")
    assert (status, answer["reason"]) == (404, "NotFound")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_nothing_is_written_here(local: Served, method: str) -> None:
    local.node.put("web")
    status, answer, _ = await local.ask(f"{PODS}/web", method=method)
    assert (status, answer["status"]) == (403, "Failure")


async def test_exec_asks_for_an_upgrade(local: Served) -> None:
    local.node.put("web")
    status, answer, _ = await local.ask(f"{PODS}/web/exec?command=id&stdout=true", method="POST")
    assert (status, answer["message"]) == (400, "Upgrade request required")
