"""What time it is, and how long ago something was, on a machine whose clock jumps, lies or was off."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest

from agent.clock import plausible_age
from agent.known_time import STEPS_KEPT, KnownTime, Reading, begun, believed, heard, kept, looked

NOW = 1_800_000_000.0
YEARS_10 = 10 * 365.25 * 86400.0
HOUR = 3600.0


@dataclass
class Node:
    """A machine with an agent: time passes for both of its clocks, and the wall clock can be set."""

    wall: float = NOW
    up: float = 100.0
    boot: str = "first"
    corrigible: bool = True
    known: KnownTime = field(init=False)

    def __post_init__(self) -> None:
        self.known = begun(None, self.reading, corrigible=self.corrigible)

    @property
    def reading(self) -> Reading:
        return Reading(self.boot, self.up, self.wall)

    @property
    def time(self) -> float:
        self.known = looked(self.known, self.reading)
        return believed(self.known, self.reading)

    def since(self, moment: float) -> float:
        assert self.time
        return self.known.since(moment, self.up)

    def passes(self, seconds: float) -> None:
        self.up += seconds
        self.wall += seconds

    def jumps(self, seconds: float) -> None:
        self.wall += seconds

    def hears(self, server_unix: float) -> None:
        assert self.time
        self.known = heard(self.known, self.reading, server_unix)

    def agent_restarts(self) -> None:
        row = msgspec.json.encode(kept(self.known, self.up))
        self.known = begun(msgspec.json.decode(row, type=KnownTime), self.reading, corrigible=self.corrigible)

    def reboots(self, off_s: float, wall: float | None = None) -> None:
        """`wall` is what the clock shows after it; without it it went on right."""
        row = msgspec.json.encode(kept(self.known, self.up))
        self.wall = self.wall + off_s if wall is None else wall
        self.boot, self.up = self.boot + "+", 20.0
        self.known = begun(msgspec.json.decode(row, type=KnownTime), self.reading, corrigible=self.corrigible)


def test_a_right_clock_is_simply_believed() -> None:
    node = Node()
    node.hears(NOW + 0.7)
    for _ in range(100):
        node.passes(HOUR)
        node.jumps(2.0)  # as a clock that is adjusted again and again
        assert node.time == node.wall
    assert node.since(NOW) == pytest.approx(100 * HOUR, abs=300)


@pytest.mark.parametrize("jump_s", [YEARS_10, -YEARS_10, HOUR, -HOUR], ids=["+10y", "-10y", "+1h", "-1h"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_jumps_after_the_api_server_told_the_time_is_not_believed(jump_s: float, restarted: bool) -> None:
    node = Node()
    node.hears(NOW)
    node.passes(HOUR)
    node.jumps(jump_s)
    if restarted:
        node.agent_restarts()
    assert node.time == pytest.approx(NOW + HOUR)
    node.passes(HOUR)
    assert node.time == pytest.approx(NOW + 2 * HOUR)
    assert node.since(NOW) == pytest.approx(2 * HOUR)
    node.jumps(-jump_s)
    assert node.time == node.wall == NOW + 2 * HOUR


def test_a_clock_that_starts_in_1970_is_behind_the_last_known_time() -> None:
    node = Node()
    node.hears(NOW)
    node.passes(HOUR)
    node.reboots(600, wall=20.0)
    assert node.time == pytest.approx(NOW + HOUR)
    node.passes(60)
    assert node.time == pytest.approx(NOW + HOUR + 60)
    # How long it was off nobody knows: nothing is counted.
    assert node.since(NOW) == pytest.approx(HOUR + 60)
    node.wall = NOW + HOUR + 660
    assert node.time == node.wall


def test_a_clock_that_went_on_while_the_machine_was_off_is_believed() -> None:
    node = Node()
    node.hears(NOW)
    node.reboots(3 * HOUR)
    assert node.time == NOW + 3 * HOUR
    assert node.since(NOW) == pytest.approx(3 * HOUR)


def test_of_a_first_start_in_1970_time_passes_evenly_when_the_clock_is_set_right() -> None:
    node = Node(wall=30.0)
    assert node.time == 30.0
    node.passes(HOUR)
    node.wall = NOW
    assert node.time == NOW
    assert node.since(30.0) == pytest.approx(HOUR)
    node.passes(HOUR)
    node.agent_restarts()
    assert node.since(30.0) == pytest.approx(2 * HOUR)
    assert node.since(NOW) == pytest.approx(HOUR)


def test_the_api_server_corrects_also_a_known_time_that_is_ahead() -> None:
    node = Node(wall=NOW + YEARS_10)
    began = node.time
    node.passes(60)
    node.hears(NOW + 60)
    assert node.time == pytest.approx(NOW + 60)
    assert node.since(began) == pytest.approx(60)
    node.wall = NOW + 60
    assert node.time == node.wall


def test_while_cut_off_a_clock_that_is_set_is_believed_but_not_below_what_was_known_at_the_start() -> None:
    node = Node()
    node.hears(NOW)
    node.reboots(60)
    node.jumps(YEARS_10)
    assert node.time == NOW + 60 + YEARS_10
    node.jumps(-YEARS_10)
    assert node.time == NOW + 60
    assert node.since(NOW) == pytest.approx(60)
    node.jumps(-YEARS_10)
    assert node.time == pytest.approx(NOW + 60)


def test_without_an_api_server_the_clock_is_all_there_is_and_time_passes_evenly_all_the_same() -> None:
    node = Node(wall=NOW + YEARS_10, corrigible=False)
    began = node.time
    node.passes(HOUR)
    node.reboots(60, wall=NOW)
    assert node.time == NOW
    assert node.since(began) == pytest.approx(HOUR)


def test_a_moment_from_before_the_record_is_as_old_as_the_clock_says_and_never_in_the_future() -> None:
    node = Node()
    assert node.since(NOW - 500) == 500
    assert node.since(NOW + 500) == 0


def test_a_clock_that_is_set_again_and_again_does_not_fill_the_record() -> None:
    node = Node()
    for _ in range(100):
        node.passes(10)
        node.jumps(HOUR)
        assert node.time == node.wall
    assert len(node.known.steps) == STEPS_KEPT


def test_a_suspension_is_time_too() -> None:
    node = Node()
    node.hears(NOW)
    node.passes(8 * HOUR)  # of both clocks; the monotonic one would have stood still
    assert node.time == node.wall


def test_an_age_that_cannot_be_is_none() -> None:
    assert plausible_age(50.0, uptime_s=100.0) == 50.0
    assert plausible_age(YEARS_10, uptime_s=100.0) == 0.0
    assert plausible_age(-1.0, uptime_s=100.0) == 0.0
