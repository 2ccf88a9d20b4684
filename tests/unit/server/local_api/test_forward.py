"""Callers with a credential of the cluster's: their answers, from the API server or from before."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from aiohttp import web

from agent.kube.credentials import Credentials
from agent.kube.rest import Api
from tests.fakes.apiserver import FakeApiServer
from tests.unit.server.authority import Authority
from tests.unit.server.local_api.conftest import REVIEWS, Node, Served, serving

MAPS = "/api/v1/namespaces/shop/configmaps"


async def test_reads_and_writes_go_on_with_the_callers_credential(joined: Served, cluster: FakeApiServer) -> None:
    cluster.put("configmaps", "c", "shop", data={"a": "1"})
    status, found, headers = await joined.ask(MAPS, "mine")
    assert (status, [item["metadata"]["name"] for item in found["items"]]) == (200, ["c"])
    assert "X-Edgelet-Age" not in headers
    status, _, _ = await joined.ask(MAPS, "mine", "POST", json={"metadata": {"name": "d"}})
    assert status == 201
    assert cluster.get("configmaps", "d", "shop") is not None
    assert {request.authorization for request in cluster.requests} == {"Bearer mine"}


async def test_the_nodes_certificate_never_goes_with_a_callers_token(tmp_path: Path, node: Node) -> None:
    """An API server takes a certificate before a token: the caller would be the node."""
    authority = Authority()
    certificate = authority.issue(tmp_path / "node.pem", "system:node:n1", "system:nodes")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=authority.pem.decode())
    shown: list[object] = []

    async def answer(request: web.Request) -> web.Response:
        shown.append(request.get_extra_info("peercert"))
        return web.json_response({"kind": "NodeList", "items": []})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
        f"clusters: [{{name: k, cluster: {{server: 'https://127.0.0.1:{runner.addresses[0][1]}', tls-server-name: x, "
        "insecure-skip-tls-verify: true}}]\n"
        f"users: [{{name: u, user: {{client-certificate: '{certificate}', client-key: '{certificate}'}}}}]\n"
        "contexts: [{name: c, context: {cluster: k, user: u}}]\n"
    )
    api = Api(await Credentials.load(kubeconfig))
    try:
        await api.get("/version")
        async with serving(tmp_path, node, api) as served:
            assert (await served.ask("/api/v1/nodes", "mine"))[0] == 200
    finally:
        await api.close()
        await runner.cleanup()
    assert shown[0]
    assert shown[1:]
    assert not any(shown[1:])


async def test_while_the_link_is_down_the_same_caller_gets_the_same_answer_marked(
    joined: Served, cluster: FakeApiServer
) -> None:
    cluster.put("configmaps", "c", "shop")
    _, before, _ = await joined.ask(f"{MAPS}?limit=500", "mine")
    assert (await joined.ask(f"{MAPS}/c", "mine"))[0] == 200
    assert (await joined.ask(f"{MAPS}/c", "yours"))[0] == 200
    await cluster.stop()

    status, after, headers = await joined.ask(MAPS, "mine")
    assert (status, after["items"]) == (200, before["items"])
    marks = headers
    assert marks["Warning"].startswith('299 - "')
    assert marks["X-Edgelet-Age"] == "0"
    assert (await joined.ask(f"{MAPS}/c", "mine"))[0] == 200
    status, refusal, headers = await joined.ask(MAPS, "yours")  # who never asked for it
    assert (status, refusal["reason"]) == (503, "ServiceUnavailable")
    assert "Retry-After" in headers
    assert (await joined.ask(f"{MAPS}/c", "nobodys"))[0] == 503


async def test_a_credential_that_was_never_taken_gets_nothing_recorded(joined: Served, cluster: FakeApiServer) -> None:
    cluster.put("configmaps", "c", "shop")
    assert (await joined.ask(f"{MAPS}/c", "mine"))[0] == 200
    assert (await joined.ask(f"{MAPS}/c", "forged"))[0] == 401
    await cluster.stop()
    assert (await joined.ask(f"{MAPS}/c", "forged"))[0] == 503


async def test_a_credential_that_is_taken_no_more_loses_its_answers(joined: Served, cluster: FakeApiServer) -> None:
    assert (await joined.ask(MAPS, "mine"))[0] == 200
    cluster.faults.insert(0, cluster.fail(401, times=1000))
    assert (await joined.ask(MAPS, "mine"))[0] == 401
    await cluster.stop()
    assert (await joined.ask(MAPS, "mine"))[0] == 503


async def test_the_next_token_of_the_same_user_has_the_answers_of_the_one_before(
    joined: Served, cluster: FakeApiServer
) -> None:
    review = b'{"status":{"userInfo":{"username":"system:serviceaccount:shop:robot","uid":"1"}}}'
    cluster.faults.insert(0, cluster.fail(201, times=2, matches=lambda r: r.path == REVIEWS, body=review))
    cluster.put("configmaps", "c", "shop")
    assert (await joined.ask(MAPS, "first"))[0] == 200
    assert (await joined.ask(f"{MAPS}/c", "second"))[0] == 200
    await cluster.stop()
    assert (await joined.ask(MAPS, "second"))[0] == 200


async def test_what_is_asked_in_anothers_name_is_not_recorded(joined: Served, cluster: FakeApiServer) -> None:
    assert (await joined.ask(MAPS, "mine", headers={"Impersonate-User": "boss"}))[0] == 200
    assert not cluster.seen("POST", "selfsubjectreviews")
    assert (await joined.ask("/api/v1/nodes", "mine"))[0] == 200
    await cluster.stop()
    assert (await joined.ask(MAPS, "mine"))[0] == 503
    assert (await joined.ask("/api/v1/nodes", "mine", headers={"Impersonate-User": "boss"}))[0] == 503


async def test_writes_while_the_link_is_down_are_refused_with_a_reason(joined: Served, cluster: FakeApiServer) -> None:
    assert (await joined.ask(MAPS, "mine"))[0] == 200
    await cluster.stop()
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        status, refusal, headers = await joined.ask(f"{MAPS}/c", "mine", method, data=b"{}")
        assert (status, refusal["status"]) == (503, "Failure")
        assert "nothing is changed" in refusal["message"]
        assert headers["Retry-After"] == "1"


async def test_an_overloaded_api_server_is_covered_by_the_record_but_its_refusals_are_not(
    joined: Served, cluster: FakeApiServer
) -> None:
    cluster.put("configmaps", "c", "shop")
    assert (await joined.ask(f"{MAPS}/c", "mine"))[0] == 200
    cluster.fail(503)
    assert (await joined.ask(f"{MAPS}/c", "mine"))[0] == 200
    cluster.remove("configmaps", "c", "shop")
    assert (await joined.ask(f"{MAPS}/c", "mine"))[0] == 404
    await cluster.stop()
    assert (await joined.ask(f"{MAPS}/c", "mine"))[0] == 503  # what is gone stays gone


async def test_an_answer_too_long_to_keep_goes_through_whole(joined: Served, cluster: FakeApiServer) -> None:
    cluster.put("configmaps", "long", "shop", data={"a": "x" * (5 * 2**20)})
    status, found, _ = await joined.ask(f"{MAPS}/long", "mine")
    assert (status, len(found["data"]["a"])) == (200, 5 * 2**20)
    await cluster.stop()
    assert (await joined.ask(f"{MAPS}/long", "mine"))[0] == 503


async def test_what_is_quoted_in_a_path_stays_quoted(joined: Served, cluster: FakeApiServer) -> None:
    """Decoded it would be another request than the one that was asked for."""
    await joined.ask("/api/v1/namespaces/shop%3Fx/configmaps?watch=1&resourceVersion=1&timeoutSeconds=1", "mine")
    assert cluster.seen("GET", "shop?x/configmaps")
    assert not [request for request in cluster.seen("GET") if "shop?x" not in request.path]


async def test_a_watch_goes_on_over_cuts_and_tells_each_change_once(joined: Served, cluster: FakeApiServer) -> None:
    cluster.put("configmaps", "a", "shop")
    revision = (await joined.ask(MAPS, "mine"))[1]["metadata"]["resourceVersion"]
    async with joined.watch(f"{MAPS}?watch=1&resourceVersion={revision}", "mine") as watching:
        cluster.put("configmaps", "b", "shop")
        assert await watching.names(1) == [("ADDED", "b")]
        for cut in range(3):
            await cluster.stop()
            cluster.put("configmaps", f"during-{cut}", "shop")
            await cluster.start()
            assert await watching.names(1) == [("ADDED", f"during-{cut}")]
            cluster.remove("configmaps", f"during-{cut}", "shop")
            assert await watching.names(1) == [("DELETED", f"during-{cut}")]


async def test_a_watch_survives_an_api_server_that_does_not_know_its_roles_yet(
    joined: Served, cluster: FakeApiServer
) -> None:
    revision = (await joined.ask(MAPS, "mine"))[1]["metadata"]["resourceVersion"]
    async with joined.watch(f"{MAPS}?watch=1&resourceVersion={revision}", "mine") as watching:
        await cluster.stop()
        cluster.put("configmaps", "b", "shop")
        cluster.faults.insert(0, cluster.fail(403, times=2, matches=lambda r: r.is_watch))
        await cluster.start()
        assert await watching.names(1) == [("ADDED", "b")]


async def test_a_watch_without_a_revision_survives_too(joined: Served, cluster: FakeApiServer) -> None:
    cluster.put("configmaps", "a", "shop")
    async with joined.watch(f"{MAPS}?watch=1", "mine") as watching:
        assert await watching.names(1) == [("ADDED", "a")]
        await cluster.stop()
        cluster.put("configmaps", "b", "shop")
        await cluster.start()
        assert await watching.names(1) == [("ADDED", "b")]


async def test_a_watch_that_begins_while_the_link_is_down_waits_for_it(joined: Served, cluster: FakeApiServer) -> None:
    revision = (await joined.ask(MAPS, "mine"))[1]["metadata"]["resourceVersion"]
    await cluster.stop()
    async with joined.watch(f"{MAPS}?watch=1&resourceVersion={revision}", "mine") as watching:
        assert watching.response.status == 200
        cluster.put("configmaps", "b", "shop")
        await cluster.start()
        assert await watching.names(1) == [("ADDED", "b")]


async def test_a_watch_survives_an_api_server_that_forgot_its_history(joined: Served, cluster: FakeApiServer) -> None:
    """As one does that was started anew: what is different by then is told as events."""
    for name in ("a", "b", "c"):
        cluster.put("configmaps", name, "shop")
    revision = (await joined.ask(MAPS, "mine"))[1]["metadata"]["resourceVersion"]
    async with joined.watch(f"{MAPS}?watch=1&resourceVersion={revision}", "mine") as watching:
        cluster.put("configmaps", "seen", "shop")
        assert await watching.names(1) == [("ADDED", "seen")]
        await cluster.stop()
        cluster.put("configmaps", "b", "shop", data={"x": "1"})
        cluster.put("configmaps", "d", "shop")
        cluster.remove("configmaps", "a", "shop")
        cluster.remove("configmaps", "c", "shop")
        cluster.put("configmaps", "c", "shop")
        cluster.compact()
        await cluster.start()
        told = await watching.names(5)
        assert set(told) == {("MODIFIED", "b"), ("ADDED", "d"), ("DELETED", "a"), ("DELETED", "c"), ("ADDED", "c")}
        assert told.index(("DELETED", "c")) < told.index(("ADDED", "c"))
        cluster.put("configmaps", "e", "shop")
        assert await watching.names(1) == [("ADDED", "e")]


async def test_a_forgotten_revision_of_unknown_content_is_told(joined: Served, cluster: FakeApiServer) -> None:
    cluster.put("configmaps", "a", "shop")
    assert (await joined.ask("/api/v1/nodes", "mine"))[0] == 200
    async with joined.watch(f"{MAPS}?watch=1&resourceVersion=100", "mine") as watching:
        assert await watching.names(1) == [("ADDED", "a")]
        await cluster.stop()
        cluster.put("configmaps", "b", "shop")
        cluster.compact()
        await cluster.start()
        kind, told = await watching.next()
        assert (kind, told["code"]) == ("ERROR", 410)
        assert await watching.response.content.read() == b""


async def test_a_recorded_list_is_as_new_as_its_watch(joined: Served, cluster: FakeApiServer) -> None:
    cluster.put("configmaps", "a", "shop")
    revision = (await joined.ask(f"{MAPS}?limit=500", "mine"))[1]["metadata"]["resourceVersion"]
    async with joined.watch(f"{MAPS}?watch=1&resourceVersion={revision}&allowWatchBookmarks=true", "mine") as watching:
        cluster.put("configmaps", "b", "shop", data={"x": "1"})
        cluster.remove("configmaps", "a", "shop")
        assert await watching.names(2) == [("ADDED", "b"), ("DELETED", "a")]
        await cluster.stop()
        _, found, _ = await joined.ask(MAPS, "mine")
    assert [(item["metadata"]["name"], item["data"]) for item in found["items"]] == [("b", {"x": "1"})]
    assert "kind" not in found["items"][0]
    assert int(found["metadata"]["resourceVersion"]) > int(revision)


async def test_recorded_answers_outlive_the_agent(tmp_path: Path, node: Node, cluster: FakeApiServer) -> None:
    cluster.put("configmaps", "a", "shop")
    api = Api(await Credentials.load(cluster.kubeconfig(tmp_path)))
    try:
        async with serving(tmp_path, node, api) as first:
            assert (await first.ask(MAPS, "mine"))[0] == 200
            recorded = first.server._recorded
            assert recorded is not None
            await recorded.save()
        assert all(row.startswith("answers") for row in node.store.rows)
        await cluster.stop()
        async with serving(tmp_path, node, api) as second:
            status, found, _ = await second.ask(MAPS, "mine")
            assert (status, len(found["items"])) == (200, 1)
            assert (await second.ask(MAPS, "yours"))[0] == 503
    finally:
        await api.close()


async def test_this_machines_token_writes_nothing_online_or_not(joined: Served, cluster: FakeApiServer) -> None:
    assert (await joined.ask(f"{MAPS}/c", method="DELETE"))[0] == 403
    assert cluster.requests == []


async def test_a_silent_api_server_is_covered_by_the_record(joined: Served, cluster: FakeApiServer) -> None:
    cluster.put("configmaps", "a", "shop")
    assert (await joined.ask(MAPS, "mine"))[0] == 200
    cluster.fail(-1, times=1000)
    async with asyncio.timeout(8):
        status, _, headers = await joined.ask(MAPS, "mine")
    assert status == 200
    assert "X-Edgelet-Age" in headers
