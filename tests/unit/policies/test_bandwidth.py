"""Bits a second, within a kubelet's bounds."""

from __future__ import annotations

import pytest

from agent.policies.bandwidth import parse


@pytest.mark.parametrize(("text", "bits"), [("10M", 10_000_000), ("1k", 1000), ("1Mi", 1_048_576), ("1P", 10**15)])
def test_a_quantity_is_bits_a_second(text: str, bits: int) -> None:
    assert parse(text) == bits


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("999", "must be from 1k to 1P bits a second"),
        ("-10M", "must be from 1k to 1P bits a second"),
        ("2P", "must be from 1k to 1P bits a second"),
        ("10Mbit", "not a resource quantity: '10Mbit'"),
        ("", "not a resource quantity: ''"),
    ],
)
def test_what_a_kubelet_refuses_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(text)
