"""What stays is said once."""

from __future__ import annotations

from agent.said_once import SaidOnce


def test_what_stays_is_not_said_again_and_what_came_back_is() -> None:
    once = SaidOnce[str]()
    assert once.new(["b", "a", "b"]) == ("b", "a")
    assert once.new(["a", "c"]) == ("c",)
    assert once.new(["a"]) == ()
    assert once.new(["b", "a"]) == ("b",)
