"""What a rush is, and how long others let it go first."""

from __future__ import annotations

import pytest

from agent.rush import CALM_S, LONGEST_HOLD_S, LONGEST_RUSH_S, Rush


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_rush_lasts_while_something_starts_or_waits_but_not_for_ever() -> None:
    clock = Hands()
    rush = Rush(clock)
    assert not rush.is_on
    rush.join()
    rush.join()
    rush.leave()
    assert rush.is_on
    clock.now += LONGEST_RUSH_S
    assert not rush.is_on
    rush.leave()
    clock.now += 2 * CALM_S
    rush.join()
    assert rush.is_on, "another one"


def test_the_steps_of_one_start_are_one_rush() -> None:
    clock = Hands()
    rush = Rush(clock)
    assert rush.hold_s == 0
    for _ in range(3):
        rush.join()
        assert rush.hold_s == CALM_S
        rush.leave()
        clock.now += CALM_S / 2
        assert rush.hold_s == pytest.approx(CALM_S / 2)
        assert not rush.is_on, "nothing is in anybody's way between two steps"
    clock.now += 2 * CALM_S
    assert rush.hold_s == 0


def test_nobody_is_held_up_for_long() -> None:
    clock = Hands()
    rush = Rush(clock)
    rush.join()
    clock.now += LONGEST_HOLD_S
    assert rush.hold_s == 0
    assert rush.is_on
