from __future__ import annotations

import pytest

from agent.policies.defaults import read_rules
from agent.policies.label_selector import LabelSelector

KEEP = "edgelet.io/keep-for"


def test_keys_are_read_in_the_order_of_their_names() -> None:
    rules, faults = read_rules({f"{n}": f"[{{annotations: {{{KEEP}: {n}m}}}}]" for n in (20, 10)} | {"05": ""})
    assert [rule.annotations[KEEP] for rule in rules] == ["10m", "20m"]
    assert faults == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("annotations: {}", "10: not a list of rules"),
        ("[", "10: not YAML: while parsing"),
        ("- {}", "10, rule 1: Object missing required field `annotations`"),
        ("- {annotations: {}, labels: {}}", "10, rule 1: Object contains unknown field `labels`"),
        ("- {annotations: {}, podSelector: {app: web}}", "10, rule 1: Object contains unknown field `app`"),
        (
            "- {annotations: {}, nodeSelector: {matchExpressions: [{key: a, operator: Gt, values: ['1']}]}}",
            "10, rule 1: operator 'Gt' is none of In, NotIn, Exists, DoesNotExist",
        ),
        (
            "- {annotations: {}, podSelector: {matchExpressions: [{key: a, operator: In}]}}",
            "10, rule 1: In of 'a' has no values",
        ),
        (
            "- {annotations: {edgelet.io/keep: 5m}}",
            "10, rule 1: annotation edgelet.io/keep='5m' does not count: there is no such policy, only edgelet.io/",
        ),
        (f"- {{annotations: {{{KEEP}: long}}}}", f"10, rule 1: annotation {KEEP}='long' does not count: 'long' is no"),
    ],
)
def test_what_is_wrong_is_named_and_the_rest_holds(text: str, fault: str) -> None:
    rules, faults = read_rules({"10": text, "20": f"- annotations: {{{KEEP}: 5m}}"})
    assert rules[-1].annotations == {KEEP: "5m"}
    assert len(faults) == 1
    assert faults[0].startswith(fault)
    assert "\n" not in faults[0]


def test_a_wrong_value_leaves_the_others_of_its_rule() -> None:
    rules, faults = read_rules({"10": f"- annotations: {{{KEEP}: long, edgelet.io/restart-on-disk: 85}}"})
    assert [rule.annotations for rule in rules] == [{"edgelet.io/restart-on-disk": "85"}]
    assert len(faults) == 1


def test_an_empty_selector_matches_everything_and_all_of_another_must_hold() -> None:
    assert LabelSelector().matches({})
    both = LabelSelector(matchLabels={"a": "1", "b": "2"})
    assert both.matches({"a": "1", "b": "2", "c": "3"})
    assert not both.matches({"a": "1"})
