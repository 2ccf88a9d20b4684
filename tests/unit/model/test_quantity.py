"""Quantities: exact, every suffix, rounded up."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.quantity import canonical, ceil_milli, ceil_units, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("100m", Fraction(1, 10)),
        ("1.5Gi", 3 * 2**29),
        ("2e3", 2000),
        ("2E3", 2000),
        ("1e-3", Fraction(1, 1000)),
        ("2E", 2 * 10**18),
        ("1Ei", 2**60),
        ("5n", Fraction(5, 10**9)),
        ("7u", Fraction(7, 10**6)),
        ("3k", 3000),
        ("3Ki", 3072),
        ("1M", 10**6),
        ("1Mi", 2**20),
        ("1T", 10**12),
        ("1Ti", 2**40),
        ("1P", 10**15),
        ("1Pi", 2**50),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("+1", 1),
        ("-1", -1),
        (" 4 ", 4),
        (4, 4),
        (0.5, Fraction(1, 2)),
    ],
)
def test_a_quantity_has_its_exact_value(text: str | int | float, value: Fraction | int) -> None:
    assert parse(text) == value


@pytest.mark.parametrize("text", ["", "m", "1 Gi", "1gi", "1K", "0x10", "1e", "1e1000000", "1.2.3", "nan", "१"])
def test_what_is_no_quantity_is_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="not a resource quantity") as caught:
        parse(text)
    assert repr(text) in str(caught.value)


def test_whole_numbers_are_rounded_up() -> None:
    assert (ceil_units("1m"), ceil_units("1500m"), ceil_units("2")) == (1, 2, 2)
    assert (ceil_milli("1u"), ceil_milli("0.1"), ceil_milli("0.0015")) == (1, 100, 2)


@given(st.integers(min_value=0, max_value=10**15), st.sampled_from(["n", "u", "m", "", "k", "Ki", "Gi", "E"]))
def test_rounding_never_loses_and_adds_less_than_one(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    assert 0 <= ceil_units(text) - parse(text) < 1
    assert 0 <= ceil_milli(text) - parse(text) * 1000 < 1


@pytest.mark.parametrize(
    ("text", "binary", "written"),
    [
        ("0.5", False, "500m"),
        ("1000m", False, "1"),
        ("1500M", False, "1500M"),
        ("1e3", False, "1k"),
        ("128Mi", True, "128Mi"),
        ("1536Mi", True, "1536Mi"),
        ("1023", True, "1023"),
        ("1025", True, "1025"),
        ("2049.5", True, "2050"),
        ("0.5n", False, "1n"),
        ("0", True, "0"),
        ("0", False, "0"),
    ],
)
def test_a_quantity_is_written_in_the_largest_unit_that_leaves_it_whole(text: str, binary: bool, written: str) -> None:
    assert canonical(parse(text), binary=binary) == written
