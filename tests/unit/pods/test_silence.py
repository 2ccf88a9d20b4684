"""A pull of which nothing comes is ended; one of which anything came never is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from agent.errors import Permanent, Retryable
from agent.pods.pulls import PullGate
from agent.pods.silence import GIVEN_UP_S, REMEMBERED_S, SILENT_S, Silence
from tests.fakes.virtual_time import in_virtual_time

REGISTRY = "r.example:5000"


def now() -> float:
    return asyncio.get_running_loop().time()


class Registry:
    """Something of it comes at `at`; `error` is raised by each look before `until`."""

    def __init__(self, at: float | None = None, error: Exception | None = None, until: float = float("inf")) -> None:
        self.at, self.error, self.until = at, error, until

    async def within(self, seconds: float, registry: str) -> bool:
        assert registry == REGISTRY
        if self.error is not None and now() < self.until:
            raise self.error
        return self.at is not None and now() - seconds <= self.at <= now()


@dataclass
class Outcome:
    got: str
    at: float
    cancelled: bool
    place_left_at: float


async def pull(registry: Registry, takes: float, *, present: bool = True, silence: Silence | None = None) -> Outcome:
    """One pull that takes that many seconds where nobody ends it."""
    cancelled = False
    left: list[float] = []

    async def pulling() -> str:
        nonlocal cancelled
        try:
            await asyncio.sleep(takes)
        except asyncio.CancelledError:
            cancelled = True
            raise
        return "pulled"

    async def may_do_without() -> bool:
        return present

    async def other(gate: PullGate) -> None:
        async with gate.turn():
            left.append(now())

    gate, watcher = PullGate(1, 0, 1), silence or Silence(registry, now)
    async with asyncio.TaskGroup() as group, gate.turn() as place:
        group.create_task(other(gate))
        try:
            got = await watcher.watch(REGISTRY, pulling(), place, may_do_without)
        except Permanent as error:
            got = str(error)
        at = now()
    return Outcome(got, at, cancelled, left[0])


@in_virtual_time
async def test_a_pod_that_may_do_without_waits_fifteen_seconds() -> None:
    got = await pull(Registry(), 1000)
    assert got.got == f"RegistryUnavailable: {REGISTRY} did not answer within 15s"
    assert (got.at, got.cancelled, got.place_left_at) == (SILENT_S, True, SILENT_S)


@in_virtual_time
async def test_one_that_needs_the_pull_waits_longer_and_lets_others_pull_meanwhile() -> None:
    got = await pull(Registry(), 1000, present=False)
    assert got.got == f"RegistryUnavailable: {REGISTRY} did not answer within 120s"
    assert (got.at, got.cancelled, got.place_left_at) == (GIVEN_UP_S, True, SILENT_S)


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize("at", [0.0, 1.0, 14.0])
@in_virtual_time
async def test_a_pull_of_which_anything_came_takes_what_it_takes(at: float, present: bool) -> None:
    got = await pull(Registry(at), 36000, present=present)
    assert (got.got, got.at, got.place_left_at) == ("pulled", 36000, 36000)


@in_virtual_time
async def test_a_mirror_that_is_gone_costs_time_and_not_the_pull() -> None:
    got = await pull(Registry(35), 36000, present=False)
    assert (got.got, got.at) == ("pulled", 36000)


@in_virtual_time
async def test_where_nobody_can_tell_the_pull_is_left_alone() -> None:
    got = await pull(Registry(error=Permanent("Unimplemented", "no such service")), 36000)
    assert (got.got, got.at) == ("pulled", 36000)


@in_virtual_time
async def test_a_runtime_that_does_not_answer_is_asked_again() -> None:
    got = await pull(Registry(error=Retryable("busy"), until=SILENT_S + 1), 36000)
    assert (got.at, got.cancelled) == (2 * SILENT_S, True)


@in_virtual_time
async def test_what_the_pull_says_is_said() -> None:
    async def refused() -> None:
        await asyncio.sleep(1)
        raise Permanent("", "401 Unauthorized")

    async def never() -> bool:
        raise AssertionError

    silence = Silence(Registry(), now)
    async with PullGate(1, 0, 1).turn() as place:
        with pytest.raises(Permanent, match="401"):
            await silence.watch(REGISTRY, refused(), place, never)
    silence.check(REGISTRY)


@in_virtual_time
async def test_who_is_cancelled_ends_its_pull() -> None:
    ended = asyncio.Event()

    async def pulling() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.set()

    async def never() -> bool:
        raise AssertionError

    async with PullGate(1, 0, 1).turn() as place:
        watch = asyncio.create_task(Silence(Registry(), now).watch(REGISTRY, pulling(), place, never))
        await asyncio.sleep(1)
        watch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watch
    assert ended.is_set()


def known(silence: Silence) -> Callable[[], bool]:
    def is_known() -> bool:
        try:
            silence.check(REGISTRY)
        except Permanent:
            return True
        return False

    return is_known


@in_virtual_time
async def test_a_silent_registry_is_remembered_for_a_while_and_others_are_not_it() -> None:
    silence = Silence(Registry(), now)
    is_known = known(silence)
    assert not is_known()
    await pull(Registry(), 1000, silence=silence)
    assert is_known()
    silence.check("other.example")
    await asyncio.sleep(REMEMBERED_S)
    assert not is_known()


@in_virtual_time
async def test_when_a_network_is_back_nobody_counts_as_silent() -> None:
    silence = Silence(Registry(), now)
    await pull(Registry(), 1000, silence=silence)
    silence.forget()
    assert not known(silence)()


@in_virtual_time
async def test_a_pull_that_ends_well_ends_the_silence() -> None:
    silence = Silence(Registry(), now)
    got = await pull(Registry(), 60, present=False, silence=silence)
    assert got.got == "pulled"
    assert not known(silence)()
