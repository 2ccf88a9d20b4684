"""Events that wait for the API server: in order, of bounded number, the eldest summed up, never dropped unsaid. Pure.

In: events as they happen. Out: the next to post. Where there are too many, the eldest of one object become one event
that counts them by reason and keeps the first and the last time; where even that is too much, all the eldest become one
event of the Node.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from agent.kube.correlate import Event
from agent.model.objects import ObjectReference

LIMIT = 1000
FOLD = 250
"""Of the eldest at a time, so that it is not done at every event."""
SUMMARIES = 200
"""More of them than this become one of the Node."""
SUMMARY_REASON = "EventsSummarized"


class Backlog:
    """Events by their number, which only grows."""

    def __init__(self, node: ObjectReference) -> None:
        self._node = node
        self._events: OrderedDict[int, Event] = OrderedDict()
        self._numbers: dict[int, int] = {}
        """By the event's id(): which number a queued one has."""
        self._next = 1
        self.recorded: set[int] = set()
        """Numbers that are on disk."""
        self.changed: set[int] = set()
        """Numbers whose form on disk is old."""

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events.values())

    def get(self, number: int) -> Event | None:
        return self._events.get(number)

    def recall(self, recorded: Mapping[int, Event]) -> None:
        """What an agent before this one left, ahead of what happened since the start."""
        since = list(self._events.values())
        self._events.clear()
        self._numbers.clear()
        for number, event in sorted(recorded.items()):
            event.queued = True
            self._put(number, event)
        self._next = max(recorded, default=0) + 1
        for event in since:
            self.append(event)

    def append(self, event: Event) -> None:
        event.queued = True
        self._put(self._next, event)
        self._next += 1
        if len(self._events) > LIMIT:
            self._fold()

    def insert(self, event: Event) -> None:
        """As `append`, but where it belongs by its time; the first of all is being told, and stays."""
        later = [number for number, other in list(self._events.items())[1:] if other.first_at > event.first_at]
        moved = [self._events[number] for number in later]
        for number in later:
            self.done(number)
        for one in (event, *moved):
            self.append(one)

    def touched(self, event: Event) -> None:
        """A queued event counted up."""
        if (number := self._numbers.get(id(event))) is not None:
            self.changed.add(number)

    def first(self) -> tuple[int, Event]:
        number = next(iter(self._events))
        return number, self._events[number]

    def done(self, number: int) -> None:
        """It was told, or has no reader."""
        event = self._events.pop(number)
        del self._numbers[id(event)]
        event.queued = False
        if number in self.recorded:
            self.changed.add(number)
        else:
            self.changed.discard(number)

    def count_unsaid(self, about: ObjectReference, kind: str, reason: str, wall: float) -> None:
        """An object that says too much: its event is not told by itself, and is counted in the object's summary."""
        for number, event in self._events.items():
            if event.folded and event.about.uid == about.uid:
                _add(event, reason, 1, kind, wall, wall)
                self.changed.add(number)
                return
        self.append(_summary(about, reason, kind, wall))

    def _put(self, number: int, event: Event) -> None:
        self._events[number] = event
        self._numbers[id(event)] = number
        self.changed.add(number)

    def _fold(self) -> None:
        eldest = list(self._events)[:FOLD]
        by_object: dict[str, list[int]] = {}
        for number in eldest:
            by_object.setdefault(self._events[number].about.uid, []).append(number)
        summaries = sum(1 for event in self._events.values() if event.folded)
        if summaries + len(by_object) > SUMMARIES:
            by_object = {"": eldest}
        for uid, numbers in by_object.items():
            if len(numbers) == 1 and uid:
                continue
            events = [self._events[number] for number in numbers]
            about = events[0].about if uid else self._node
            for number in numbers[1:]:
                self.done(number)
            # In the place of the first, so that the order stays.
            events[0].queued = False
            del self._numbers[id(events[0])]
            summary = _sum_of(about, events)
            summary.queued = True
            self._put(numbers[0], summary)


def _sum_of(about: ObjectReference, events: list[Event]) -> Event:
    made = Event(about, "Normal", SUMMARY_REASON, "", events[0].first_at, events[0].last_at, count=0)
    for event in events:
        for reason, count in (event.folded or {event.reason: event.count}).items():
            _add(made, reason, count, event.kind, event.first_at, event.last_at)
    return made


def _summary(about: ObjectReference, reason: str, kind: str, wall: float) -> Event:
    made = Event(about, kind, SUMMARY_REASON, "", wall, wall, count=0)
    _add(made, reason, 1, kind, wall, wall)
    return made


def _add(summary: Event, reason: str, count: int, kind: str, first_at: float, last_at: float) -> None:
    summary.folded[reason] = summary.folded.get(reason, 0) + count
    summary.count += count
    summary.kind = "Warning" if "Warning" in (kind, summary.kind) else "Normal"
    summary.first_at = min(summary.first_at, first_at)
    summary.last_at = max(summary.last_at, last_at)
    counts = ", ".join(f"{reason} ({count})" for reason, count in summary.folded.items())
    summary.message = f"{summary.count} events while the API server was away, too many to tell each: {counts}"
