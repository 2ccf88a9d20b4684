from __future__ import annotations

from agent.kube.correlate import COMBINED, Correlator, Event
from agent.model.objects import ObjectReference


class Pod:
    """One pod that says things at moments."""

    def __init__(self, name: str = "web", correlator: Correlator | None = None) -> None:
        self.about = ObjectReference(kind="Pod", name=name, uid=name, namespace="default")
        self.correlator = correlator or Correlator()

    def says(self, reason: str, message: str, at: float = 0.0, kind: str = "Normal") -> Event | None:
        return self.correlator.observe(self.about, kind, reason, message, 1000.0 + at, at)


def test_the_same_event_again_is_a_count_with_the_first_moment_kept() -> None:
    pod = Pod()
    first = pod.says("BackOff", "again")
    second = pod.says("BackOff", "again", at=5)
    assert first is second
    assert second is not None
    assert (second.count, second.first_at, second.last_at) == (2, 1000.0, 1005.0)


def test_another_message_reason_type_or_object_is_another_event() -> None:
    correlator = Correlator()
    pod, other = Pod("a", correlator), Pod("b", correlator)
    events = [
        pod.says("Pulled", "x"),
        pod.says("Pulled", "y"),
        pod.says("Pulling", "x"),
        pod.says("Pulled", "x", kind="Warning"),
        other.says("Pulled", "x"),
    ]
    assert len({id(event) for event in events}) == 5


def test_the_eleventh_similar_event_within_ten_minutes_is_combined() -> None:
    pod = Pod()
    for number in range(10):
        pod.says("FailedMount", f"try {number}")
    combined = pod.says("FailedMount", "try 10")
    again = pod.says("FailedMount", "try 11")
    assert combined is again
    assert again is not None
    assert again.message == COMBINED + "try 11"
    assert again.count == 2


def test_similar_events_far_apart_are_not_combined() -> None:
    pod = Pod()
    for number in range(20):
        event = pod.says("FailedMount", f"try {number}", at=number * 601.0)
        assert event is not None
        assert not event.message.startswith(COMBINED)


def test_the_twenty_sixth_event_of_an_object_is_held_back_and_one_more_after_five_minutes() -> None:
    correlator = Correlator()
    pod, other = Pod("a", correlator), Pod("b", correlator)
    said = [pod.says("BackOff", "again") for _ in range(30)]
    assert len([event for event in said if event is not None]) == 25
    assert other.says("BackOff", "again") is not None
    assert pod.says("BackOff", "again", at=299) is None
    late = pod.says("BackOff", "again", at=600)
    assert late is not None
    assert late.count == 32


def test_what_is_remembered_is_bounded() -> None:
    correlator = Correlator()
    for number in range(5000):
        Pod(f"p{number}", correlator).says("Started", "x")
    assert correlator.remembered == 4096
    for number in range(5000):
        Pod("one", correlator).says("Started", f"x{number}", at=number * 601.0)
    assert correlator.remembered <= 4096


def test_an_object_that_is_gone_leaves_nothing() -> None:
    correlator = Correlator()
    pod, other = Pod("a", correlator), Pod("b", correlator)
    first, kept = pod.says("Started", "x"), other.says("Started", "x")
    pod.says("Killing", "x")
    correlator.forget("a")
    assert correlator.remembered == 1
    assert pod.says("Started", "x") is not first
    assert other.says("Started", "x") is kept
