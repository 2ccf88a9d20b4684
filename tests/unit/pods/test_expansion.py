import pytest

from agent.pods.expansion import expand, references

SCOPE = {"VAR": "v", "OTHER": "$(VAR)", "EMPTY": "", "A-b.c": "dashed"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("$(VAR)", "v"),
        ("a$(VAR)b$(VAR)", "avbv"),
        ("$(EMPTY)x", "x"),
        ("$(A-b.c)", "dashed"),
        ("$(MISSING)", "$(MISSING)"),
        ("$$(VAR)", "$(VAR)"),
        ("$$$(VAR)", "$v"),
        ("$$$$(VAR)", "$$(VAR)"),
        ("$VAR ${VAR} $", "$VAR ${VAR} $"),
        ("$(VAR", "$(VAR"),
        ("$()", "$()"),
        ("$(MISSING$(VAR))", "$(MISSING$(VAR))"),
        ("$(OTHER)", "$(VAR)"),
        ("line\n$(VAR)\n", "line\nv\n"),
    ],
)
def test_references_are_replaced_once_and_only_where_they_are_known(text: str, expected: str) -> None:
    assert expand(text, SCOPE) == expected


def test_the_first_scope_that_knows_a_name_wins() -> None:
    assert expand("$(VAR) $(HOST)", {"VAR": "own"}, {"VAR": "service", "HOST": "h"}) == "own h"


def test_references_are_listed_once_and_without_the_escaped_ones() -> None:
    assert references("$(A)/$$(B)/$(C)/$(A)/$D") == ("A", "C")
