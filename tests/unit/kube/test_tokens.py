from __future__ import annotations

import asyncio
import re
import time

import pytest

from agent.errors import Forbidden, NotFound, Retryable
from agent.kube.events import EventRecorder
from agent.kube.rest import Api
from agent.kube.tokens import ANNOTATION, ServiceAccountTokens, StandaloneTokens
from agent.model.pod import Pod, pod_from_dict
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore


def pod(uid: str = "u1") -> Pod:
    return pod_from_dict(
        {"metadata": {"name": "web", "namespace": "shop", "uid": uid}, "spec": {"serviceAccountName": "clerk"}}
    )


class WaitlessClock(FakeClock):
    """Time passes at once for whoever sleeps."""

    def __init__(self) -> None:
        super().__init__(wall=time.time())
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> WaitlessClock:
    return WaitlessClock()


@pytest.fixture
def tokens(api: Api, store: MemoryStore, clock: WaitlessClock) -> ServiceAccountTokens:
    return ServiceAccountTokens(api, store, clock)


async def test_a_token_is_bound_to_the_pod(server: FakeApiServer, tokens: ServiceAccountTokens) -> None:
    token = await tokens.token(pod(), "vault", 3607)
    assert token.token == "token-1"
    request = server.requests[-1]
    assert request.path == "/api/v1/namespaces/shop/serviceaccounts/clerk/token"
    assert request.body["spec"] == {
        "audiences": ["vault"],
        "expirationSeconds": 3607,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u1"},
    }


async def test_the_default_audience_is_the_servers_own(server: FakeApiServer, tokens: ServiceAccountTokens) -> None:
    await tokens.token(pod(), "", 3607)
    assert server.requests[-1].body["spec"]["audiences"] == []


async def test_two_volumes_share_one_request(server: FakeApiServer, tokens: ServiceAccountTokens) -> None:
    first, second = await asyncio.gather(tokens.token(pod(), "", 3607), tokens.token(pod(), "", 3607))
    assert first == second
    assert server.tokens_issued == 1


async def test_another_pod_audience_or_life_is_another_token(
    server: FakeApiServer, tokens: ServiceAccountTokens
) -> None:
    await tokens.token(pod(), "", 3607)
    await tokens.token(pod("u2"), "", 3607)
    await tokens.token(pod(), "vault", 3607)
    await tokens.token(pod(), "", 600)
    assert server.tokens_issued == 4


async def test_a_token_is_renewed_when_four_fifths_of_its_life_are_over(
    server: FakeApiServer, tokens: ServiceAccountTokens, clock: WaitlessClock
) -> None:
    await tokens.token(pod(), "", 1000)
    await clock.advance(799)
    assert (await tokens.token(pod(), "", 1000)).token == "token-1"
    await clock.advance(2)
    assert (await tokens.token(pod(), "", 1000)).token == "token-2"


async def test_a_long_token_is_renewed_daily(
    server: FakeApiServer, tokens: ServiceAccountTokens, clock: WaitlessClock
) -> None:
    server.token_life_s = 1e9
    await tokens.token(pod(), "", 30 * 86400)
    await clock.advance(86401)
    assert (await tokens.token(pod(), "", 30 * 86400)).token == "token-2"


async def test_a_restarted_agent_goes_on_with_the_recorded_token(
    server: FakeApiServer, api: Api, store: MemoryStore, tokens: ServiceAccountTokens, clock: WaitlessClock
) -> None:
    await tokens.token(pod(), "https://x/y", 1000)
    again = ServiceAccountTokens(api, store, clock)
    assert (await again.token(pod(), "https://x/y", 1000)).token == "token-1"
    late = ServiceAccountTokens(api, store, clock)
    await clock.advance(805)
    assert (await late.token(pod(), "https://x/y", 1000)).token == "token-2"


async def test_while_the_server_is_away_the_last_token_is_given(
    server: FakeApiServer, tokens: ServiceAccountTokens, clock: WaitlessClock
) -> None:
    await tokens.token(pod(), "", 1000)
    await clock.advance(900)
    server.fail(503, times=1)
    assert (await tokens.token(pod(), "", 1000)).token == "token-1"
    assert len(server.seen("POST")) == 2
    # Not asked again at once, but soon.
    assert (await tokens.token(pod(), "", 1000)).token == "token-1"
    assert len(server.seen("POST")) == 2
    await clock.advance(10)
    assert (await tokens.token(pod(), "", 1000)).token == "token-2"


async def test_even_an_ended_token_is_better_than_a_pod_that_cannot_start(
    server: FakeApiServer, tokens: ServiceAccountTokens, clock: WaitlessClock
) -> None:
    await tokens.token(pod(), "", 1000)
    await clock.advance(5000)
    server.fail(503)
    assert (await tokens.token(pod(), "", 1000)).token == "token-1"


async def test_a_pod_with_an_ended_token_hears_of_it_once_and_has_a_new_one_when_the_server_is_back(
    server: FakeApiServer, api: Api, store: MemoryStore, clock: WaitlessClock
) -> None:
    woken: list[str] = []
    events = EventRecorder(api, "edge", clock)
    tokens = ServiceAccountTokens(api, store, clock, events, woken.append)
    uid = server.put("pods", "web", "shop")["metadata"]["uid"]
    await tokens.token(pod(uid), "", 1000)
    await clock.advance(3 * 86400)
    api.link.lost()
    for _ in range(3):
        assert (await tokens.token(pod(uid), "", 1000)).token == "token-1"
        await clock.advance(60)
    assert [event.reason for event in events.backlog] == ["StaleToken"]

    api.link.answered(0.0)
    assert woken == [uid]
    assert (await tokens.token(pod(uid), "", 1000)).token == "token-2"
    assert [event.reason for event in events.backlog] == ["StaleToken", "TokenReplaced"]
    found = server.get("pods", "web", "shop")
    assert found is not None
    assert re.match(r"clerk: ended 20\S+Z, replaced 20\S+Z$", found["metadata"]["annotations"][ANNOTATION])


async def test_the_pod_says_that_its_token_has_ended_as_soon_as_the_server_answers_and_not_only_once_it_is_replaced(
    server: FakeApiServer, api: Api, store: MemoryStore, clock: WaitlessClock
) -> None:
    tokens = ServiceAccountTokens(api, store, clock)
    uid = server.put("pods", "web", "shop")["metadata"]["uid"]
    await tokens.token(pod(uid), "", 1000)
    await clock.advance(3 * 86400)
    server.fail(503, times=99, matches=lambda request: request.path.endswith("/token"))
    for _ in range(3):
        assert (await tokens.token(pod(uid), "", 1000)).token == "token-1"
        await clock.advance(11)
    found = server.get("pods", "web", "shop")
    assert found is not None
    assert re.match(r"clerk: ended 20\S+Z, not replaced yet: .*503", found["metadata"]["annotations"][ANNOTATION])
    assert len(server.seen("PATCH")) == 1
    server.faults.clear()
    await tokens.token(pod(uid), "", 1000)
    found = server.get("pods", "web", "shop")
    assert found is not None
    assert ", replaced 20" in found["metadata"]["annotations"][ANNOTATION]


async def test_our_own_refused_credential_keeps_no_pod_from_its_ended_token(
    server: FakeApiServer, tokens: ServiceAccountTokens, clock: WaitlessClock
) -> None:
    await tokens.token(pod(), "", 1000)
    await clock.advance(5000)
    server.fail(401, times=9, reason="Unauthorized")
    assert (await tokens.token(pod(), "", 1000)).token == "token-1"


@pytest.mark.parametrize("jump_s", [-10 * 365 * 86400.0, 10 * 365 * 86400.0])
async def test_on_a_clock_that_jumped_a_recorded_token_is_asked_for_anew_and_given_where_that_fails(
    server: FakeApiServer, api: Api, store: MemoryStore, tokens: ServiceAccountTokens, jump_s: float
) -> None:
    await tokens.token(pod(), "", 1000)
    jumped = WaitlessClock()
    jumped._wall_offset += jump_s
    server.fail(503)
    again = ServiceAccountTokens(api, store, jumped)
    assert (await again.token(pod(), "", 1000)).token == "token-1"
    await jumped.advance(11)
    assert (await again.token(pod(), "", 1000)).token == "token-2"


async def test_a_first_token_cannot_be_had_without_the_server(
    server: FakeApiServer, tokens: ServiceAccountTokens
) -> None:
    server.fail(503)
    with pytest.raises(Retryable):
        await tokens.token(pod(), "", 1000)


async def test_an_authorizer_that_lags_is_asked_again(
    server: FakeApiServer, tokens: ServiceAccountTokens, clock: WaitlessClock
) -> None:
    server.fail(403, times=3)
    await tokens.token(pod(), "", 1000)
    assert clock.slept == [0.05, 0.1, 0.2]


async def test_a_lasting_refusal_is_raised(server: FakeApiServer, tokens: ServiceAccountTokens) -> None:
    server.fail(403, times=9)
    with pytest.raises(Forbidden):
        await tokens.token(pod(), "", 1000)


async def test_no_such_account_is_not_found(server: FakeApiServer, tokens: ServiceAccountTokens) -> None:
    server.fail(404, times=9)
    with pytest.raises(NotFound):
        await tokens.token(pod(), "", 1000)


async def test_a_server_that_does_not_know_the_new_pod_yet_is_asked_again(
    server: FakeApiServer, tokens: ServiceAccountTokens, clock: WaitlessClock
) -> None:
    server.fail(404, times=2)
    await tokens.token(pod(), "", 1000)
    assert clock.slept == [0.05, 0.1]


async def test_an_answer_that_is_no_token_is_tried_again_later(
    server: FakeApiServer, tokens: ServiceAccountTokens
) -> None:
    server.fail(201, body=b"{}")
    with pytest.raises(Retryable):
        await tokens.token(pod(), "", 1000)


async def test_a_pods_tokens_go_with_it(tokens: ServiceAccountTokens, store: MemoryStore) -> None:
    await tokens.token(pod(), "", 1000)
    await tokens.token(pod("u2"), "", 1000)
    await tokens.forget("u1")
    assert [key.split("/")[1] for key in store.rows] == ["u2"]


async def test_a_broken_record_row_is_replaced(
    api: Api, tokens: ServiceAccountTokens, store: MemoryStore, clock: WaitlessClock
) -> None:
    await tokens.token(pod(), "", 1000)
    await store.put(next(iter(store.rows)), b"torn")
    assert (await ServiceAccountTokens(api, store, clock).token(pod(), "", 1000)).token == "token-2"


async def test_a_standalone_node_says_that_it_has_no_tokens() -> None:
    with pytest.raises(NotFound, match="standalone"):
        await StandaloneTokens().token(pod(), "", 1000)
