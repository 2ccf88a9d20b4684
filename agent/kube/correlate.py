"""Which events are news, which are a count, and which are spam: what every Kubernetes client does before it posts.

In: one occurrence. Out: the event that it belongs to, new or counted up, or None where the object has said too much.
The numbers are client-go's: ten similar events within ten minutes are combined, and an object may say 25 things at
once and then one every five minutes. No I/O: the caller posts.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from agent.model.objects import ObjectReference

SIMILAR_LIMIT = 10
SIMILAR_WITHIN_S = 600.0
BURST = 25
REFILL_S = 300.0
REMEMBERED = 4096
"""Events of all objects together. What an object said is forgotten as a whole, that of the eldest first."""
COMBINED = "(combined from similar events): "

_ObjectId = tuple[str, str, str, str, str]
_Similar = tuple[str, str]
"""Type and reason."""
_Same = tuple[str, str, str, str]
"""Those, message and the part of the object."""


class Event(msgspec.Struct, eq=False):
    """One event of the API, perhaps of many occurrences. Only the correlator and the recorder change it."""

    about: ObjectReference
    kind: str
    reason: str
    message: str
    first_at: float
    last_at: float
    """Unix seconds."""
    count: int = 1
    name: str = ""
    """In the API; kept when a POST must be tried again, so that it can't be there twice."""
    posted: bool = False
    queued: bool = False
    folded: dict[str, int] = msgspec.field(default_factory=dict)
    """Of a summary: how often which reason."""
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class _Messages(msgspec.Struct):
    """Of similar events, those within ten minutes of each other."""

    said: list[str] = msgspec.field(default_factory=list)
    last_at: float = 0.0


class _Speaker(msgspec.Struct):
    """What one object said."""

    filled_at: float
    tokens: float = BURST
    similar: dict[_Similar, _Messages] = msgspec.field(default_factory=dict)
    events: dict[_Same | _Similar, Event] = msgspec.field(default_factory=dict)


class Correlator:
    def __init__(self) -> None:
        self._speakers: OrderedDict[_ObjectId, _Speaker] = OrderedDict()
        self._events = 0

    def observe(
        self, about: ObjectReference, kind: str, reason: str, message: str, wall: float, monotonic: float
    ) -> Event | None:
        """Count one occurrence."""
        who = (about.uid, about.kind, about.namespace, about.name, about.apiVersion)
        speaker = self._speakers.setdefault(who, _Speaker(monotonic))
        self._speakers.move_to_end(who)
        messages = speaker.similar.setdefault((kind, reason), _Messages())
        if monotonic - messages.last_at > SIMILAR_WITHIN_S:
            messages.said.clear()
        messages.last_at = monotonic
        key: _Same | _Similar = (kind, reason, message, about.fieldPath)
        if message not in messages.said:
            if len(messages.said) >= SIMILAR_LIMIT:
                message, key = COMBINED + message, (kind, reason)
            else:
                messages.said.append(message)
        event = speaker.events.get(key)
        if event is None:
            event = speaker.events[key] = Event(about, kind, reason, message, wall, wall)
            self._events += 1
            self._forget_the_eldest()
        else:
            event.count += 1
            event.last_at = wall
            event.message = message
        return event if _may_speak(speaker, monotonic) else None

    def forget(self, uid: str) -> None:
        """An object is gone: another one of its name has another UID."""
        for who in [who for who in self._speakers if who[0] == uid]:
            self._events -= len(self._speakers.pop(who).events)

    @property
    def remembered(self) -> int:
        """Events."""
        return self._events

    def _forget_the_eldest(self) -> None:
        while self._events > REMEMBERED:
            _, eldest = self._speakers.popitem(last=False)
            self._events -= len(eldest.events)


def _may_speak(speaker: _Speaker, monotonic: float) -> bool:
    speaker.tokens = min(BURST, speaker.tokens + (monotonic - speaker.filled_at) / REFILL_S)
    speaker.filled_at = monotonic
    if speaker.tokens < 1:
        return False
    speaker.tokens -= 1
    return True
