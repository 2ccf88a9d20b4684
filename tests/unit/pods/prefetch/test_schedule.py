"""Times of day, and a rate that is kept on the whole."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.pods.prefetch.schedule import BURST_S, Budget, is_open, written

NIGHT = (22 * 60, 6 * 60)
NOON = (12 * 60, 13 * 60)


@pytest.mark.parametrize(
    ("time", "open_"),
    [("21:59", False), ("22:00", True), ("23:59", True), ("00:00", True), ("05:59", True), ("06:00", False)],
)
def test_a_window_may_go_past_midnight(time: str, open_: bool) -> None:
    assert is_open((NIGHT,), datetime.fromisoformat(f"2026-11-29T{time}:30")) is open_


def test_without_a_window_it_is_always_time_and_with_two_each_counts() -> None:
    noon, morning = datetime(2026, 1, 1, 12, 30), datetime(2026, 1, 1, 9)
    assert is_open((), noon)
    assert is_open((NIGHT, NOON), noon)
    assert not is_open((NIGHT, NOON), morning)
    assert is_open(((0, 24 * 60),), noon)


def test_windows_are_told_as_they_were_written() -> None:
    assert written((NIGHT, NOON)) == "22:00-06:00,12:00-13:00"


@given(st.lists(st.integers(0, 50_000_000), min_size=1, max_size=60))
def test_however_much_comes_at_once_the_whole_keeps_the_rate(pieces: list[int]) -> None:
    rate, now, came = 2_000_000, 100.0, 0
    budget = Budget(rate, now)
    for size in pieces:
        now += 0.05
        came += size
        if not budget.spend(size, now):
            now += budget.wait_s(now)
            # All that came so far is paid for by the time that has passed, but for one burst.
            assert came <= (now - 100.0) * rate + 1
            assert budget.spend(0, now)


def test_after_a_pause_of_hours_no_more_comes_at_once_than_a_burst() -> None:
    budget = Budget(1000, 0.0)
    assert not budget.spend(int(1000 * BURST_S), 36_000.0)
    assert budget.wait_s(36_000.0) == BURST_S


def test_without_a_rate_nobody_waits() -> None:
    budget = Budget(0, 0.0)
    assert budget.spend(10**12, 1.0)
    assert budget.wait_s(1.0) == 0


def test_a_day_of_25_hours_has_its_window_twice() -> None:
    """What counts is the hour that the clock on the wall shows."""
    twice = datetime(2026, 10, 25, 2, 30)
    assert is_open(((120, 180),), twice.replace(fold=0))
    assert is_open(((120, 180),), twice.replace(fold=1))
    assert not is_open(((120, 180),), twice + timedelta(hours=1))
