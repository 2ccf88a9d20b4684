"""Thresholds are crossed, last, are over, and show as conditions of the Node."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from agent.config import Settings
from agent.node.eviction.signals import Condition, Observation, Observations, Signal
from agent.node.eviction.thresholds import Amount, State, Threshold, kept_free, look, met, next_look_s, thresholds

MIB = 2**20
GIB = 2**30
BARE = Settings("edge-1", eviction_hard={}, enforce_node_allocatable=())
HARD = Threshold(Signal.MEMORY, Amount("100Mi"))
SOFT = Threshold(Signal.MEMORY, Amount("300Mi"), grace_s=60)
DISK = Threshold(Signal.NODE_FS, Amount("10%"), minimum_reclaim=Amount("5%"))


def memory(available: int) -> Observations:
    return {Signal.MEMORY: Observation(available, 8 * GIB)}


def disk(available: int) -> Observations:
    return {Signal.NODE_FS: Observation(available, 100)}


def step(
    every: tuple[Threshold, ...], *seen: tuple[float, Observations]
) -> list[tuple[set[str], tuple[Threshold, ...]]]:
    """(conditions, what pods go for) after each look."""
    state, told = State(), []
    for now, observed in seen:
        found = look(every, state, observed, now, transition_period_s=300)
        state = found.state
        told.append(({str(one) for one in found.conditions}, found.reclaim))
    return told


@pytest.mark.parametrize(
    ("threshold", "seen", "crossed"),
    [
        (HARD, memory(100 * MIB - 1), True),
        (HARD, memory(100 * MIB), False),
        (HARD, disk(0), False),
        (DISK, disk(9), True),
        (DISK, disk(10), False),
        (Threshold(Signal.PIDS, Amount("2.5%")), {Signal.PIDS: Observation(24, 1000)}, True),
        (Threshold(Signal.PIDS, Amount("2.5%")), {Signal.PIDS: Observation(25, 1000)}, False),
    ],
)
def test_less_than_the_amount_crosses_it(threshold: Threshold, seen: Observations, crossed: bool) -> None:
    assert met((threshold,), seen) == ((threshold,) if crossed else ())


def test_a_hard_threshold_costs_a_pod_at_once_and_its_condition_outlasts_it() -> None:
    high, low = memory(GIB), memory(MIB)
    assert step((HARD,), (0, high), (10, low), (20, high), (309, high), (310, high)) == [
        (set(), ()),
        ({"MemoryPressure"}, (HARD,)),
        ({"MemoryPressure"}, ()),
        ({"MemoryPressure"}, ()),
        (set(), ()),
    ]  # fmt: skip


def test_a_soft_one_must_last_and_begins_anew_after_a_break() -> None:
    low, high = memory(200 * MIB), memory(GIB)
    told = step((SOFT,), (0, low), (59, low), (60, low), (61, high), (70, low), (129, low), (130, low))
    assert [reclaim for _, reclaim in told] == [(), (), (SOFT,), (), (), (), (SOFT,)]
    assert told[0][0] == {"MemoryPressure"}


def test_what_was_crossed_is_over_only_with_its_minimum_reclaim() -> None:
    told = step((DISK,), (0, disk(9)), (10, disk(14)), (20, disk(15)), (30, disk(14)))
    assert [reclaim for _, reclaim in told] == [(DISK,), (DISK,), (), ()]


def test_a_signal_that_cannot_be_read_is_no_reason() -> None:
    assert step((HARD, DISK), (0, {}))[0] == (set(), ())


def test_memory_comes_first_whatever_the_order_of_the_settings() -> None:
    settings = replace(
        BARE,
        eviction_hard={"nodefs.available": "10%", "memory.available": "100Mi"},
        eviction_soft={"memory.available": "300Mi"},
        eviction_soft_grace_period={"memory.available": 60.0},
        eviction_minimum_reclaim={"nodefs.available": "5%"},
    )
    assert thresholds(settings) == (HARD, SOFT, DISK)


def test_where_the_pods_cgroup_is_enforced_it_has_the_hard_memory_threshold_too() -> None:
    settings = replace(BARE, eviction_hard={"memory.available": "100Mi"}, enforce_node_allocatable=("pods",))
    assert thresholds(settings) == (HARD, replace(HARD, signal=Signal.ALLOCATABLE_MEMORY))


@pytest.mark.parametrize(
    ("available", "seconds"),
    [(GIB, 10), (200 * MIB, 10), (199 * MIB, 1), (100 * MIB, 1), (99 * MIB, 10)],
)
def test_near_its_memory_threshold_a_machine_is_looked_at_closely(available: int, seconds: float) -> None:
    assert next_look_s((HARD,), memory(available)) == seconds


def test_several_pressures_show_at_once() -> None:
    seen = {**memory(0), **disk(0), Signal.PIDS: Observation(0, 10)}
    found = look((HARD, DISK, Threshold(Signal.PIDS, Amount("1"))), State(), seen, 0, transition_period_s=5)
    assert found.conditions == set(Condition)
    assert found.reclaim[0] == HARD


def test_hard_thresholds_are_kept_from_pods() -> None:
    settings = replace(BARE, eviction_hard={"memory.available": "5%", "nodefs.available": "1Gi"})
    assert kept_free(settings, Signal.MEMORY, 1000) == 50
    assert kept_free(settings, Signal.NODE_FS, 10 * GIB) == GIB
    assert kept_free(settings, Signal.IMAGE_FS, 10 * GIB) == 0


@pytest.mark.parametrize(
    ("amount", "spelled"), [("100Mi", "100Mi"), ("1024Mi", "1Gi"), ("100M", "100M"), ("10%", "820Mi"), ("1", "1")]
)
def test_an_amount_is_written_as_kubernetes_writes_it(amount: str, spelled: str) -> None:
    assert Amount(amount).spelled(8200 * MIB) == spelled
