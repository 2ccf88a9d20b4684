from __future__ import annotations

import json
from pathlib import Path

import pytest
from loguru import logger

from agent.errors import Conflict, EdgeletError, Forbidden, Gone, NotFound, Permanent, Retryable
from agent.kube.answers import error_of
from agent.kube.credentials import Credentials
from agent.kube.pods_api import PodsApi
from agent.kube.rest import Api
from tests.fakes.apiserver import FakeApiServer

POD = "/api/v1/namespaces/default/pods/web"


async def test_a_body_comes_back_as_bytes(server: FakeApiServer, api: Api) -> None:
    server.put("pods", "web")
    assert json.loads(await api.get(POD))["metadata"]["name"] == "web"


async def test_the_token_and_who_we_are_go_with_each_request(server: FakeApiServer, api: Api) -> None:
    server.put("pods", "web")
    await api.get(POD)
    assert server.requests[-1].authorization == "Bearer secret-token"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Permanent),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (410, Gone),
        (422, Permanent),
        (429, Retryable),
        (500, Retryable),
        (503, Retryable),
        (302, Retryable),
    ],
)
async def test_http_statuses_become_our_errors(
    server: FakeApiServer, api: Api, status: int, error: type[EdgeletError]
) -> None:
    server.fail(status, reason="Because")
    with pytest.raises(error, match=f"injected {status}") as caught:
        await api.get(POD)
    assert type(caught.value) is error
    if isinstance(caught.value, Permanent):
        assert caught.value.reason == "Because"


async def test_the_servers_wish_when_to_retry_is_kept(server: FakeApiServer, api: Api) -> None:
    server.fail(429, headers={"Retry-After": "7"})
    with pytest.raises(Retryable) as caught:
        await api.get(POD)
    assert caught.value.after == 7.0


@pytest.mark.parametrize(
    ("asked", "after"), [("7", 7.0), ("86400", 30.0), ("0", None), ("soon", None), ("-3", None), ("", None)]
)
def test_a_wish_to_wait_is_kept_within_reason(asked: str, after: float | None) -> None:
    error = error_of(503, b"", {"Retry-After": asked}, "GET /x")
    assert isinstance(error, Retryable)
    assert error.after == after


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (302, b""),
        (400, b"<html>bad</html>"),
        (404, b"<html>not here</html>"),
        (404, b"not found"),
        (404, b'{"kind":"Status","reason":"NotFound"'),
        (404, b'{"error":"no route"}'),
        (409, b"conflict"),
        (410, b""),
        (422, b"[]"),
    ],
)
def test_what_no_api_server_says_is_no_answer(status: int, body: bytes) -> None:
    assert isinstance(error_of(status, body, {}, "GET /x"), Retryable)


def test_a_404_says_what_was_looked_for() -> None:
    body = b'{"kind":"Status","reason":"NotFound","details":{"name":"web","kind":"pods"},"code":404}'
    error = error_of(404, body, {}, "GET /x")
    assert isinstance(error, NotFound)
    assert (error.resource, error.name) == ("pods", "web")
    # A group or version that is not served.
    assert isinstance(error_of(404, b"404 page not found\n", {}, "GET /x"), NotFound)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"ok",
        b"[]",
        b"<html>welcome</html>",
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"we',
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"\xff"}}',
        b'{"metadata":{"name":"web"}}',
        b'{"kind":"Status","apiVersion":"v1","status":"Success"}',
    ],
)
async def test_a_success_without_a_whole_object_is_no_answer(server: FakeApiServer, api: Api, body: bytes) -> None:
    server.fail(200, body=body)
    with pytest.raises(Retryable, match="not by an API server"):
        await api.get(POD)


def test_an_answer_that_is_no_status_still_has_its_first_line_in_the_error() -> None:
    error = error_of(502, b"<html>Bad gateway</html>\nmore", {}, "GET /x")
    assert isinstance(error, Retryable)
    assert str(error) == "<html>Bad gateway</html>"


def test_an_empty_refusal_names_the_request() -> None:
    assert str(error_of(500, b"", {}, "GET /x")) == "GET /x: HTTP 500"


async def test_a_call_that_is_never_answered_ends_at_its_deadline(server: FakeApiServer, api: Api) -> None:
    server.fail(-1)
    with pytest.raises(Retryable, match="no answer within"):
        await api.get(POD, timeout_s=0.05)
    assert not api.reachable


async def test_a_lost_server_is_logged_once_and_its_return_once(
    server: FakeApiServer, api: Api, tmp_path: Path
) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    try:
        await server.stop()
        for _ in range(3):
            with pytest.raises(Retryable):
                await api.get(POD)
        await server.start()
        server.put("pods", "web")
        await api.get(POD)
        await api.get(POD)
    finally:
        logger.remove(sink)
    assert [line.split(":")[-1].strip().split(" ", 1)[-1] for line in lines if "answers again" in line] == [
        "answers again"
    ]
    assert len([line for line in lines if "does not answer" in line]) == 1
    assert api.reachable


async def test_a_refused_credential_is_read_anew_once(server: FakeApiServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    api = Api(await Credentials.load(server.kubeconfig(tmp_path, f"tokenFile: '{token}'")))
    server.put("pods", "web")
    server.fail(401, times=99, matches=lambda request: request.authorization != "Bearer new")
    token.write_text("new\n")
    await api.get(POD)
    assert [request.authorization for request in server.requests] == ["Bearer old", "Bearer new"]
    await api.close()


async def test_a_credential_that_stays_refused_is_forbidden(server: FakeApiServer, api: Api) -> None:
    server.fail(401, times=99)
    with pytest.raises(Forbidden):
        await api.get(POD)
    assert len(server.requests) == 2


async def test_a_status_patch_keeps_labels_and_foreign_conditions(server: FakeApiServer, api: Api) -> None:
    pod = server.put("pods", "web", metadata={"labels": {"a": "b"}}, status={"conditions": [{"type": "gate/x"}]})
    uid = pod["metadata"]["uid"]
    body = {"metadata": {"uid": uid}, "status": {"phase": "Running", "conditions": [{"type": "Ready"}]}}
    await PodsApi(api).patch_pod_status("default", "web", json.dumps(body).encode())
    now = server.get("pods", "web")
    assert now is not None
    assert now["metadata"]["labels"] == {"a": "b"}
    assert [condition["type"] for condition in now["status"]["conditions"]] == ["gate/x", "Ready"]
    assert server.requests[-1].content_type == "application/strategic-merge-patch+json"


async def test_a_status_for_another_uid_is_a_conflict(server: FakeApiServer, api: Api) -> None:
    server.put("pods", "web")
    with pytest.raises(Conflict):
        await PodsApi(api).patch_pod_status("default", "web", b'{"metadata":{"uid":"older"},"status":{}}')


async def test_a_pod_is_deleted_only_by_its_uid_and_without_grace(server: FakeApiServer, api: Api) -> None:
    uid = server.put("pods", "web")["metadata"]["uid"]
    with pytest.raises(Conflict):
        await PodsApi(api).delete_pod("default", "web", "older")
    await PodsApi(api).delete_pod("default", "web", uid)
    assert server.get("pods", "web") is None
    assert server.requests[-1].body["gracePeriodSeconds"] == 0
    with pytest.raises(NotFound):
        await PodsApi(api).delete_pod("default", "web", uid)
