"""What is withheld for others, over traces of what they use. One look each ten seconds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from agent.node.live_plan import DWELL_S, NOTHING, Amounts, Look, Withheld, decide

USUAL: Amounts = {"cpu": 4000, "memory": 8000}
EVERY_S = 10


def follow(
    memory: Iterable[int], *, cpu: int = 0, requested: Amounts = NOTHING, before: Withheld | None = None, at: float = 0
) -> tuple[list[int], Withheld]:
    """The memory that is withheld after each look."""
    state, found = before or Withheld(), []
    for number, over in enumerate(memory):
        state = decide(state, Look(at + number * EVERY_S, {"cpu": cpu, "memory": over}), USUAL, requested)
        found.append(state.amounts["memory"])
    return found, state


def changes(withheld: Sequence[int]) -> list[tuple[int, int]]:
    """(seconds, amount) of each change, from nothing."""
    before = (0, *withheld)
    return [
        (number * EVERY_S, now) for number, (old, now) in enumerate(zip(before, withheld, strict=False)) if old != now
    ]


def test_what_others_take_is_withheld_once_it_has_lasted_and_given_back_once_it_was_free_for_longer() -> None:
    withheld, state = follow([0] * 3 + [3000] * 12 + [0] * 12)
    assert changes(withheld) == [(50, 3000), (210, 0)]
    assert state.changed_at == 210


def test_a_short_burst_and_a_short_pause_change_nothing() -> None:
    assert changes(follow([0, 0, 0, 5000, 5000, 0, 0, 0])[0]) == []
    assert changes(follow([3000] * 9 + [0] * 5 + [3000] * 9)[0]) == [(20, 3000)]


def test_noise_below_the_band_changes_nothing_and_the_last_of_it_is_given_back() -> None:
    assert changes(follow([0, 399, 0, 399, 399, 399, 399])[0]) == []
    assert changes(follow([3000, 3000, 3000] + [2700, 3300] * 20)[0]) == [(20, 3000)]
    assert changes(follow([450] * 10 + [100] * 10 + [0] * 10)[0]) == [(20, 450), (260, 0)]


def test_between_two_changes_there_is_a_minute_however_wild_the_trace() -> None:
    wild = [(number * 7919) % 8000 if number % 4 else (number * 104729) % 8000 for number in range(500)]
    ramp = [min(8000, number * 100) for number in range(100)]
    for trace in (wild, ramp, ramp[::-1]):
        at = [seconds for seconds, _ in changes(follow(trace)[0])]
        assert all(later - sooner >= DWELL_S for sooner, later in itertools.pairwise(at))
    assert len(changes(follow(ramp)[0])) > 5


def test_the_least_that_others_lately_used_is_withheld_not_their_peak() -> None:
    assert changes(follow([0, 2000, 3500, 2500, 2600, 2600])[0]) == [
        (30, 2000),
    ]


def test_never_so_much_that_pods_lack_what_they_request() -> None:
    withheld, state = follow([7000] * 10, cpu=4000, requested={"cpu": 1500, "memory": 6500})
    assert changes(withheld) == [(20, 1500)]
    assert state.amounts["cpu"] == 2500
    overcommitted = {"cpu": 5000, "memory": 9000}
    assert follow([8000] * 10, cpu=4000, requested=overcommitted)[1].amounts == NOTHING


def test_cpu_and_memory_change_together() -> None:
    _, state = follow([3000] * 3, cpu=1000)
    assert state.amounts == {"cpu": 1000, "memory": 3000}
    assert state.changed_at == 20


def test_what_was_withheld_before_a_restart_is_until_others_were_seen_not_to_need_it() -> None:
    before = Withheld({"cpu": 0, "memory": 3000})
    assert changes([3000, *follow([3000] * 10, before=before)[0]]) == [(0, 3000)]
    withheld, _ = follow([0] * 10, before=before)
    assert withheld == [3000] * 6 + [0] * 4


def test_looks_are_kept_no_longer_than_they_are_needed() -> None:
    assert len(follow([0] * 1000)[1].looks) <= 8
