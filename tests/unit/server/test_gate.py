"""Who gets in at the real server, over TLS."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.config import Settings
from tests.unit.server.authority import Authority
from tests.unit.server.cluster import Cluster
from tests.unit.server.serving import Silent, served

FORBIDDEN = "Forbidden (user=eve, verb=get, resource=nodes, subresource(s)=[{}])"


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    made.add("good", "alice", ("get", "pods"))
    made.add("weak", "eve")
    return made


async def test_a_token_with_the_right_gets_what_it_may_and_nothing_else(
    settings: Settings, authority: Authority, cluster: Cluster
) -> None:
    async with served(settings, Silent(), authority.pem, None, cluster) as api:
        assert (await api.get("/pods", token="good"))[0] == 200
        assert (await api.get("/runningpods/", token="good"))[0] == 200
        assert (await api.get("/configz", token="good"))[0] == 403
        assert (await api.get("/run/shop/web/main?cmd=id", "POST", token="good"))[0] == 403


@pytest.mark.parametrize(
    ("path", "rights"),
    [
        ("/pods", "pods proxy"),
        ("/healthz/ping", "healthz proxy"),
        ("/configz", "configz proxy"),
        ("/stats/summary", "stats"),
        ("/metrics/resource", "metrics"),
        ("/logs/syslog", "log"),
        ("/containerLogs/shop/web/main", "proxy"),
        ("/containerLogs/none/none/none", "proxy"),
        ("/exec/shop/web/main?command=id", "proxy"),
        ("/nowhere", "proxy"),
    ],
)
async def test_a_refusal_is_the_same_whether_there_is_such_a_thing_or_not(
    settings: Settings, authority: Authority, cluster: Cluster, path: str, rights: str
) -> None:
    async with served(settings, Silent(), authority.pem, None, cluster) as api:
        assert await api.get(path, token="weak") == (403, FORBIDDEN.format(rights))
        assert await api.get(path, token="unknown") == (401, "Unauthorized")
        assert await api.get(path) == (401, "Unauthorized")


@pytest.mark.parametrize(
    "path",
    [
        "//configz",
        "/pods/../configz",
        "/pods/..%2fconfigz",
        "/pods%2f..%2fconfigz",
        "/%70ods/..;/configz",
        "/pods//configz",
        "/./configz",
        "/pods/%2e%2e/exec/shop/web/main?command=id&output=1",
        "/pods%00/configz",
        "/healthz/../run/shop/web/main",
    ],
)
async def test_no_spelling_of_a_path_reaches_a_handler_by_another_right(
    settings: Settings, authority: Authority, cluster: Cluster, path: str
) -> None:
    cluster.rights |= {("alice", "get", "healthz")}
    async with served(settings, Silent(), authority.pem, None, cluster) as api:
        status, text = await api.get_raw(path, token="good")
        assert status in (400, 403, 404), text
        assert "kubeletconfig" not in text


async def test_a_client_certificate_of_the_cluster_is_asked_for_by_its_name_and_groups(
    settings: Settings, authority: Authority, cluster: Cluster, tmp_path: Path
) -> None:
    scraper = authority.issue(tmp_path / "scraper.pem", "prometheus", "monitoring")
    cluster.rights = {("prometheus", "get", "healthz")}
    async with served(settings, Silent(), authority.pem, scraper, cluster) as api:
        assert (await api.get("/healthz"))[0] == 200
        assert (await api.get("/pods"))[0] == 403
    assert cluster.asked[0]["spec"]["groups"] == ["monitoring", "system:authenticated"]


async def test_administrators_are_let_in_without_the_api_server_and_others_told_why_not(
    settings: Settings, authority: Authority, cluster: Cluster, admin: Path, tmp_path: Path
) -> None:
    cluster.reachable = False
    other = authority.issue(tmp_path / "other.pem", "ops", "people")
    async with served(settings, Silent(), authority.pem, admin, cluster) as api:
        assert (await api.get("/pods"))[0] == 200
    async with served(settings, Silent(), authority.pem, other, cluster) as api:
        status, text = await api.get("/pods")
        assert (status, text.rpartition(": ")[2]) == (403, "the API server does not answer")
    async with served(settings, Silent(), authority.pem, None, cluster) as api:
        assert await api.get("/pods", token="good") == (401, "Unauthorized: the API server does not answer")
    assert cluster.asked == []


async def test_the_owner_may_turn_tokens_or_the_question_what_a_client_may_off(
    settings: Settings, authority: Authority, cluster: Cluster
) -> None:
    without = replace(settings, authentication_token_webhook=False)
    async with served(without, Silent(), authority.pem, None, cluster) as api:
        assert await api.get("/pods", token="good") == (401, "Unauthorized")
    everything = replace(settings, authorization_mode="AlwaysAllow")
    async with served(everything, Silent(), authority.pem, None, cluster) as api:
        assert (await api.get("/configz", token="weak"))[0] == 200
        assert (await api.get("/configz"))[0] == 401
