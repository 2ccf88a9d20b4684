"""How often registries are asked, what pulls that failed are called, how durations are written."""

from __future__ import annotations

import asyncio

import pytest

from agent.errors import Permanent
from agent.pods.go_duration import go_duration
from agent.pods.pull_faults import is_away, pull_fault, summary
from agent.pods.pulls import PullGate
from tests.fakes.virtual_time import in_virtual_time


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0009, "0s"),
        (0.85, "850ms"),
        (1, "1s"),
        (1.25, "1.25s"),
        (59.9999, "59.999s"),
        (62.5, "1m2.5s"),
        (120, "2m0s"),
        (3600, "1h0m0s"),
        (3661.001, "1h1m1.001s"),
    ],
)
def test_a_duration_is_written_as_go_does(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


@pytest.mark.parametrize(
    ("said", "reason", "message"),
    [
        ("not found", "ErrImagePull", "not found"),
        ("RegistryUnavailable", "RegistryUnavailable", "image pull failed for a:1 because the registry is unavailable"),
        ("see RegistryUnavailable", "ErrImagePull", "see RegistryUnavailable"),
    ],
)
def test_a_pull_is_called_what_the_runtime_calls_it_first(said: str, reason: str, message: str) -> None:
    fault = pull_fault("a:1", said)
    assert (fault.reason, str(fault)) == (reason, message)


@pytest.mark.parametrize(("texts", "told"), [(["a"], "a"), (["a", "a"], "a"), (["a", "b", "a"], "[a, b]")])
def test_several_texts_are_one(texts: list[str], told: str) -> None:
    assert summary(texts) == told


@pytest.mark.parametrize(
    "said",
    [
        "RegistryUnavailable: r.example did not answer within 15s",
        'failed to do request: Head "https://r.example/v2/": context canceled',
        "PullImage: the runtime at unix:///x gave the call up: failed to pull and unpack image: context canceled",
        "rpc error: code = DeadlineExceeded desc = failed to pull and unpack image",
        "read tcp 10.0.0.2:40000->10.0.0.1:443: read: connection timed out",
    ],
)
def test_a_pull_that_nobody_answered_is_told_from_a_refusal(said: str) -> None:
    assert is_away(said)
    assert not is_away("manifest unknown: not found")


async def _times(gate: PullGate, pulls: int) -> list[float]:
    """When each of them could begin, in seconds from now."""
    loop = asyncio.get_running_loop()
    now, begun = loop.time(), []
    for _ in range(pulls):
        async with gate.turn():
            begun.append(round(loop.time() - now, 6))
    return begun


@in_virtual_time
async def test_after_a_burst_pulls_wait_for_their_turn() -> None:
    gate = PullGate(1, 2, 3, asyncio.get_running_loop().time)
    assert await _times(gate, 5) == [0, 0, 0, 0.5, 1.0]
    await asyncio.sleep(60)
    assert await _times(gate, 4) == [0, 0, 0, 0.5]


@in_virtual_time
async def test_no_rate_is_no_limit() -> None:
    assert await _times(PullGate(1, 0, 1, asyncio.get_running_loop().time), 100) == [0] * 100


@in_virtual_time
async def test_who_leaves_its_place_early_lets_one_other_in_and_not_two() -> None:
    gate = PullGate(1, 0, 1)
    async with gate.turn() as first:
        first.leave()
        first.leave()
        async with gate.turn():
            assert gate._places.locked()
    assert gate._places._value == 1


@in_virtual_time
async def test_a_check_that_fails_takes_neither_place_nor_token() -> None:
    gate = PullGate(1, 1, 1, asyncio.get_running_loop().time)

    def known() -> None:
        raise Permanent("", "silent")

    for _ in range(5):
        with pytest.raises(Permanent, match="silent"):
            async with gate.turn(known):
                pass
    assert await _times(gate, 1) == [0]


@in_virtual_time
async def test_who_gives_way_to_pods_hears_when_none_pulls_or_waits() -> None:
    gate = PullGate(1, 0, 1)
    assert gate.idle.is_set()
    async with gate.turn() as place:
        place.leave()
        async with gate.turn():
            assert not gate.idle.is_set()
        assert not gate.idle.is_set()
    assert gate.idle.is_set()
