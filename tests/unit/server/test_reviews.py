import asyncio

import pytest

from agent.server.clients import Client
from agent.server.reviews import WAITING, Lives, Reviews, Undecided
from agent.server.rights import Right
from tests.unit.server.cluster import Cluster

PODS = Right("get", ("pods", "proxy"))
ALICE = Client("alice", ("team", "system:authenticated"), "uid-alice", {"from": ("here",)})


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def reviews(cluster: Cluster, clock: FakeClock) -> Reviews:
    return Reviews(cluster, "n1", Lives(), clock)


async def test_a_token_is_the_user_that_the_api_server_says_for_two_minutes(
    reviews: Reviews, cluster: Cluster, clock: FakeClock
) -> None:
    cluster.add("t", "alice")
    assert await reviews.client("t") == ALICE
    cluster.tokens.clear()
    clock.now += 119
    assert await reviews.client("t") == ALICE
    clock.now += 1
    assert await reviews.client("t") is None


async def test_an_unknown_token_is_asked_for_again_after_ten_seconds(
    reviews: Reviews, cluster: Cluster, clock: FakeClock
) -> None:
    assert await reviews.client("t") is None
    clock.now += 9
    cluster.add("t", "alice")
    assert await reviews.client("t") is None
    assert cluster.count("TokenReview") == 1
    clock.now += 1
    assert await reviews.client("t") == ALICE


async def test_a_yes_holds_five_minutes_and_a_no_thirty_seconds(
    reviews: Reviews, cluster: Cluster, clock: FakeClock
) -> None:
    right = Right("get", ("stats",))
    assert not await reviews.may(ALICE, right)
    cluster.rights.add(("alice", "get", "stats"))
    clock.now += 29
    assert not await reviews.may(ALICE, right)
    clock.now += 1
    assert await reviews.may(ALICE, right)
    cluster.rights.clear()
    clock.now += 299
    assert await reviews.may(ALICE, right)
    clock.now += 1
    assert not await reviews.may(ALICE, right)


async def test_the_narrow_right_is_asked_for_first_and_proxy_is_enough(reviews: Reviews, cluster: Cluster) -> None:
    cluster.rights = {("alice", "get", "proxy")}
    assert await reviews.may(ALICE, PODS)
    assert [asked["spec"]["resourceAttributes"]["subresource"] for asked in cluster.asked] == ["pods", "proxy"]
    cluster.rights = {("bob", "get", "pods")}
    cluster.asked.clear()
    assert await reviews.may(Client("bob"), PODS)
    assert len(cluster.asked) == 1
    assert not await reviews.may(Client("carol"), PODS)


async def test_everything_that_the_api_server_said_of_a_user_is_asked_with(reviews: Reviews, cluster: Cluster) -> None:
    await reviews.may(ALICE, PODS)
    spec = cluster.asked[0]["spec"]
    assert (spec["user"], spec["uid"], spec["groups"]) == ("alice", "uid-alice", ["team", "system:authenticated"])
    assert spec["extra"] == {"from": ["here"]}


async def test_what_is_known_holds_while_the_api_server_is_away_and_the_rest_is_undecided(
    reviews: Reviews, cluster: Cluster, clock: FakeClock
) -> None:
    cluster.add("t", "alice", ("get", "proxy"))
    client = await reviews.client("t")
    assert client is not None
    assert await reviews.may(client, PODS)
    cluster.reachable = False
    clock.now += 100
    assert await reviews.client("t") == client
    assert await reviews.may(client, PODS)
    with pytest.raises(Undecided, match=r"^the API server does not answer$"):
        await reviews.client("other")
    with pytest.raises(Undecided, match=r"^the API server does not answer$"):
        await reviews.may(client, Right("create", ("proxy",)))
    clock.now += 200
    with pytest.raises(Undecided):
        await reviews.client("t")
    cluster.reachable = True
    assert await reviews.client("t") == client


async def test_a_cluster_that_lets_this_node_not_ask_is_told_without_its_words(
    reviews: Reviews, cluster: Cluster
) -> None:
    cluster.refuses = True
    with pytest.raises(Undecided, match=r"^the API server does not let this node ask$"):
        await reviews.client("t")


async def test_without_an_api_server_nobody_knows_a_token(clock: FakeClock) -> None:
    with pytest.raises(Undecided):
        await Reviews(None, "n1", Lives(), clock).client("t")


@pytest.mark.parametrize("token", ["", "x" * 20_000])
async def test_what_can_be_no_token_is_nobodys_question(reviews: Reviews, cluster: Cluster, token: str) -> None:
    assert await reviews.client(token) is None
    assert cluster.asked == []


class Slow(Cluster):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = 0
        self.most = 0
        self.go_on = asyncio.Event()

    async def request(self, method: str, path: str, *, body: bytes, timeout_s: float) -> bytes:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.go_on.wait()
            return await super().request(method, path, body=body, timeout_s=timeout_s)
        finally:
            self.under_way -= 1


async def test_those_who_ask_at_once_are_one_question_and_one_that_leaves_hands_it_on(clock: FakeClock) -> None:
    cluster = Slow()
    cluster.add("t", "alice")
    reviews = Reviews(cluster, "n1", Lives(), clock)
    asking = [asyncio.ensure_future(reviews.client("t")) for _ in range(10)]
    await asyncio.sleep(0.01)
    asking[0].cancel()
    await asyncio.sleep(0.01)
    cluster.go_on.set()
    assert await asyncio.gather(*asking[1:]) == [ALICE] * 9
    assert cluster.count("TokenReview") == 1


async def test_a_flood_of_tokens_is_a_few_questions_at_once_and_soon_refused(clock: FakeClock) -> None:
    cluster = Slow()
    reviews = Reviews(cluster, "n1", Lives(), clock)
    asking = [asyncio.ensure_future(reviews.client(f"t{number}")) for number in range(WAITING + 10)]
    await asyncio.sleep(0.01)
    assert sum(1 for one in asking if one.done() and isinstance(one.exception(), Undecided)) == 10
    cluster.go_on.set()
    await asyncio.gather(*asking, return_exceptions=True)
    assert cluster.most <= 4
