from __future__ import annotations

from agent.pods.policing import Policing
from agent.policies.defaults import Defaults
from tests.unit.pods.pods import make_pod
from tests.unit.pods.scene import FakeEvents

KEEP = "edgelet.io/keep-for"


def test_a_fault_is_said_once_and_again_when_the_value_is_another() -> None:
    events = FakeEvents()
    policing = Policing(events, Defaults(settings={KEEP: "5m"}))
    for _ in range(2):
        assert policing.of(make_pod({"annotations": {KEEP: "soon"}})).keep_for == 300
    policing.take(Defaults(settings={KEEP: "6m"}))
    assert policing.of(make_pod({"annotations": {KEEP: "soon"}})).keep_for == 360
    assert [reason for _, reason, _, _ in events.all] == ["InvalidPolicy"]
    policing.of(make_pod({"annotations": {KEEP: "later"}}))
    assert events.messages("InvalidPolicy") == [
        f"annotation {KEEP}='soon' does not count: 'soon' is no duration: write 90s or 1m30s",
        f"annotation {KEEP}='later' does not count: 'later' is no duration: write 90s or 1m30s",
    ]


def test_a_changed_annotation_holds_at_once() -> None:
    policing = Policing()
    assert policing.of(make_pod({"annotations": {KEEP: "1m"}})).keep_for == 60
    assert policing.of(make_pod({"annotations": {KEEP: "2m"}})).keep_for == 120
    assert policing.of(make_pod()).keep_for is None


def test_other_defaults_are_told_and_the_same_are_not() -> None:
    policing, told = Policing(), []
    policing.notify(lambda: told.append(policing.of(make_pod()).keep_for))
    policing.take(Defaults(settings={KEEP: "1m"}))
    policing.take(Defaults(settings={KEEP: "1m"}))
    assert told == [60]
