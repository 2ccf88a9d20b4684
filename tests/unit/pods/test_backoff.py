"""The kubelet's numbers: 10 s doubling to 300 s, forgotten after ten quiet minutes."""

from __future__ import annotations

from agent.pods.backoff import Backoff, raised, ready_at


def test_the_first_failure_may_be_tried_again_at_once() -> None:
    assert ready_at(None, 100.0) == 100.0


def test_every_further_failure_doubles_the_wait_up_to_five_minutes() -> None:
    backoff, now, waits = None, 0.0, []
    for _ in range(8):
        failed_at = now + 1
        now = ready_at(backoff, failed_at)
        waits.append(now - failed_at)
        backoff = raised(backoff, failed_at, now)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]


def test_the_wait_counts_from_the_failure_not_from_now() -> None:
    assert ready_at(Backoff(40, 90.0), 100.0) == 140.0


def test_ten_minutes_without_a_failure_forget_the_backoff() -> None:
    old = Backoff(300, 1000.0)
    assert ready_at(old, 1600.0) == 1900.0
    assert ready_at(old, 1600.1) == 1600.1
    assert raised(old, 1600.0, 1601.0) == Backoff(300, 1601.0)
    assert raised(old, 1600.1, 1601.0) == Backoff(10, 1601.0)
