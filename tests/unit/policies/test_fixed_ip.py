"""How an address that stays is asked for."""

from __future__ import annotations

import pytest

from agent.policies.fixed_ip import FixedIp, parse


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("true", FixedIp()),
        ("false", None),
        (" 10.88.0.7 ", FixedIp("10.88.0.7")),
        ("fd00:0::7", FixedIp("fd00::7")),
    ],
)
def test_any_address_none_or_this_one(text: str, asked: FixedIp | None) -> None:
    assert parse(text) == asked


@pytest.mark.parametrize("text", ["yes", "10.88.0.256", "10.88.0.0/16", ""])
def test_anything_else_is_wrong(text: str) -> None:
    with pytest.raises(ValueError, match='must be "true", "false" or an IP address'):
        parse(text)
