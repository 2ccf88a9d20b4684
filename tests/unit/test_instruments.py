"""Prometheus' text as Prometheus' own parser reads it."""

from __future__ import annotations

import math

from prometheus_client.parser import text_string_to_metric_families

from agent import own_metrics
from agent.exposition import Exposition, Kind, number
from agent.instruments import Counter, Gauge, Histogram, text_of


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_labels_come_back_as_they_were_given_whatever_is_in_them() -> None:
    odd = 'a "quoted" \\ back\nslash {x="y"}, é'
    out = Exposition()
    out.family("odd", Kind.GAUGE, "With a \\ and\na line.")
    out.sample(1.5, {"of": odd})
    assert parsed(out.text()) == {("odd", (("of", odd),)): 1.5}


def test_a_family_without_samples_leaves_nothing() -> None:
    out = Exposition()
    out.family("none", Kind.GAUGE, "Nothing.")
    out.family("some", Kind.GAUGE, "Something.")
    out.sample(1)
    assert "none" not in out.text()


def test_a_sample_tells_its_moment_in_milliseconds() -> None:
    out = Exposition()
    out.family("at", Kind.GAUGE, "A moment.")
    out.sample(3, at_ms=1_700_000_000_123)
    (family,) = text_string_to_metric_families(out.text())
    assert family.samples[0].timestamp == 1_700_000_000.123


def test_numbers_keep_their_digits() -> None:
    assert [number(value) for value in (7, 7.0, 0.1, 2**60 + 1)] == ["7", "7", "0.1", "1152921504606846977"]
    assert [number(value) for value in (math.inf, -math.inf)] == ["+Inf", "-Inf"]
    assert number(math.nan) == "NaN"


def test_a_counter_counts_by_its_labels_and_forgets_what_is_gone() -> None:
    counter = Counter("told_total", "Told.", "who")
    counter.inc("a")
    counter.inc("a", by=2)
    counter.inc("b")
    counter.forget(lambda labels: labels["who"] == "b")
    assert parsed(text_of([counter])) == {("told_total", (("who", "a"),)): 3}


def test_a_counter_without_labels_is_there_before_it_counts() -> None:
    assert parsed(text_of([Counter("told_total", "Told.")])) == {("told_total", ()): 0}


def test_a_gauge_is_read_when_it_is_asked_for() -> None:
    gauge = Gauge("depth", "Depth.")
    assert text_of([gauge]) == ""
    held = [1]
    gauge.read = lambda: {(): held[0]}
    held[0] = 5
    assert parsed(text_of([gauge])) == {("depth", ()): 5}


def test_a_histogram_counts_a_value_in_every_bucket_that_it_fits() -> None:
    histogram = Histogram("took_seconds", "Took.", (0.1, 1), "what")
    for value in (0.1, 0.5, 7):
        histogram.observe(value, "it")
    found = parsed(text_of([histogram]))
    what = ("what", "it")
    assert [found["took_seconds_bucket", (("le", bound), what)] for bound in ("0.1", "1", "+Inf")] == [1, 2, 3]
    assert found["took_seconds_count", (what,)] == 3
    assert found["took_seconds_sum", (what,)] == 7.6


def test_all_of_the_agents_own_series_parse_and_are_named_once() -> None:
    names = [one.name for one in (*own_metrics.OWN, *own_metrics.PROBES)]
    assert len(names) == len(set(names))
    list(text_string_to_metric_families(text_of(own_metrics.OWN)))
