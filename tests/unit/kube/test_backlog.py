"""Events that wait: in order, bounded, nothing dropped unsaid."""

from __future__ import annotations

from agent.kube import backlog
from agent.kube.backlog import LIMIT, SUMMARY_REASON, Backlog
from agent.kube.correlate import Event
from agent.model.objects import ObjectReference

NODE = ObjectReference(kind="Node", name="edge", uid="edge")


def pod(uid: str) -> ObjectReference:
    return ObjectReference(kind="Pod", name=f"pod-{uid}", uid=uid, namespace="shop")


def event(uid: str, reason: str, at: float, kind: str = "Normal", count: int = 1) -> Event:
    return Event(pod(uid), kind, reason, "x", at, at, count=count)


def total(waiting: Backlog) -> int:
    return sum(one.count for one in waiting)


def test_too_many_of_one_object_become_one_that_counts_them_with_the_first_and_the_last_time() -> None:
    waiting = Backlog(NODE)
    for n in range(LIMIT + 1):
        waiting.append(event("a", "BackOff" if n % 2 else "Killing", n, "Warning" if n == 7 else "Normal"))
    summary = next(iter(waiting))
    assert (summary.reason, summary.kind, summary.count) == (SUMMARY_REASON, "Warning", backlog.FOLD)
    assert (summary.first_at, summary.last_at) == (0, backlog.FOLD - 1)
    assert "Killing (125), BackOff (125)" in summary.message
    assert len(waiting) == LIMIT + 2 - backlog.FOLD
    assert total(waiting) == LIMIT + 1


def test_summaries_are_summed_up_again_and_the_number_stays_bounded() -> None:
    waiting = Backlog(NODE)
    for n in range(10 * LIMIT):
        waiting.append(event("a", "BackOff", n))
    assert len(waiting) <= LIMIT
    assert total(waiting) == 10 * LIMIT
    assert [one.first_at for one in waiting] == sorted(one.first_at for one in waiting)


def test_of_ever_new_objects_one_event_of_the_node_is_left() -> None:
    waiting = Backlog(NODE)
    for n in range(10 * LIMIT):
        waiting.append(event(f"pod-{n // 2}", "Killing", n))
    assert len(waiting) <= LIMIT
    assert total(waiting) == 10 * LIMIT
    assert next(iter(waiting)).about == NODE


def test_what_is_done_leaves_and_what_was_recorded_of_it_has_to() -> None:
    waiting = Backlog(NODE)
    waiting.append(event("a", "Pulled", 1))
    waiting.append(event("a", "Created", 2))
    waiting.changed.clear()
    waiting.recorded.add(2)
    for _ in range(2):
        number, first = waiting.first()
        waiting.done(number)
        assert not first.queued
    assert (len(waiting), waiting.changed) == (0, {2})


def test_what_an_earlier_agent_left_goes_first() -> None:
    waiting = Backlog(NODE)
    waiting.append(event("a", "Since", 9))
    waiting.recall({4: event("a", "Before", 1), 7: event("a", "Then", 2)})
    assert [one.reason for one in waiting] == ["Before", "Then", "Since"]


def test_an_object_that_says_too_much_is_counted() -> None:
    waiting = Backlog(NODE)
    for n in range(3):
        waiting.count_unsaid(pod("a"), "Normal", "BackOff", 5.0 + n)
    waiting.count_unsaid(pod("b"), "Warning", "Unhealthy", 9)
    ours, others = waiting
    assert (ours.count, ours.first_at, ours.last_at) == (3, 5, 7)
    assert (others.count, others.kind) == (1, "Warning")


def test_what_is_told_late_has_its_place_by_its_time_behind_the_one_that_is_being_told() -> None:
    waiting = Backlog(NODE)
    for at in (5.0, 1.0, 2.0, 8.0, 9.0):
        waiting.append(event("a", f"R{at:g}", at))
    waiting.recorded.add(4)
    waiting.changed.clear()
    waiting.insert(event("b", "late", 3.0))
    waiting.insert(event("b", "latest", 10.0))
    assert [one.reason for one in waiting] == ["R5", "R1", "R2", "late", "R8", "R9", "latest"]
    assert waiting.first()[0] == 1
    # The row of the one that moved goes, and one of its new number comes.
    assert 4 in waiting.changed
    assert waiting.get(4) is None
    assert all(one.queued for one in waiting)
