"""The journal begins with the first status that was not taken, not when the link was known to be dead."""

from __future__ import annotations

from agent.model.objects import ObjectReference
from agent.model.status import Phase, PodStatus
from agent.pods.untold import KEPT, Untold


class Node:
    def __init__(self) -> None:
        self.now = 100.0
        self.journal: list[tuple[str, str, float]] = []
        self.untold = Untold(lambda about, said, at: self.journal.append((about.name, said, at)), lambda: self.now)

    def changes(self, name: str, *said: str) -> PodStatus:
        status = PodStatus(phase=Phase.RUNNING)
        self.untold.changed(name, ObjectReference(kind="Pod", name=name, uid=name), status, said)
        self.now += 1
        return status


def test_what_was_taken_is_no_news_and_what_came_after_it_is_told_with_its_own_time_in_the_order_of_time() -> None:
    node = Node()
    node.changes("a", "first")
    taken = node.changes("a", "second")
    node.changes("b", "x", "y")
    node.changes("a", "third")
    node.untold.told("a", taken)
    node.untold.lost()
    assert node.journal == [("b", "x", 102.0), ("b", "y", 102.0), ("a", "third", 103.0)]
    node.untold.lost()
    assert len(node.journal) == 3


def test_a_status_that_was_forgotten_meanwhile_settles_nothing_of_later_ones() -> None:
    node = Node()
    old = node.changes("a", "first")
    node.untold.forget("a")
    node.changes("a", "second")
    node.untold.told("a", old)
    node.untold.lost()
    assert node.journal == [("a", "second", 101.0)]


def test_of_one_pod_the_newest_are_kept() -> None:
    node = Node()
    for number in range(KEPT + 5):
        node.changes("a", str(number))
    node.untold.lost()
    assert [said for _, said, _ in node.journal] == [str(number) for number in range(5, KEPT + 5)]
