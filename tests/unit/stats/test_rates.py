"""CPU as a rate over the time between two askings."""

from __future__ import annotations

from agent.stats.rates import Rates

S = 1_000_000_000


def test_the_first_reading_has_no_rate_and_the_second_has_that_of_the_time_between() -> None:
    rates = Rates()
    assert rates.is_due("a", 100 * S)
    assert rates.rate("a", 100 * S, 5 * S) is None
    assert not rates.is_due("a", 101 * S)
    assert rates.rate("a", 110 * S, 10 * S) == S // 2


def test_two_askings_at_once_tell_the_same_and_the_window_goes_on() -> None:
    rates = Rates()
    rates.rate("a", 100 * S, 0)
    assert rates.rate("a", 110 * S, 10 * S) == S
    assert rates.rate("a", 110 * S + 1000, 10 * S + 900) == S
    assert rates.rate("a", 120 * S, 10 * S) == 0


def test_a_mean_over_a_long_time_is_not_told() -> None:
    rates = Rates()
    rates.rate("a", 100 * S, 0)
    rates.rate("a", 110 * S, S)
    assert rates.is_due("a", 1000 * S)
    assert rates.rate("a", 1000 * S, 2 * S) is None
    assert rates.rate("a", 1002 * S, 3 * S) == S // 2


def test_a_counter_that_begins_anew_has_no_negative_rate() -> None:
    rates = Rates()
    rates.rate("a", 100 * S, 50 * S)
    assert rates.rate("a", 110 * S, S) is None
    assert rates.rate("a", 120 * S, 2 * S) == S // 10


def test_what_is_gone_is_forgotten() -> None:
    rates = Rates()
    rates.rate("a", 100 * S, 0)
    rates.keep_only(["b"])
    assert rates.is_due("a", 101 * S)
