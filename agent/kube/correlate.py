"""Which events are news, which are a count, and which are spam: what every Kubernetes client does before it posts.

In: one occurrence. Out: the event that it belongs to, new or counted up, or None where the object has said too much.
The numbers are client-go's: ten similar events within ten minutes are combined, and an object may say 25 things at
once and then one every five minutes. No I/O: the caller posts.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

import msgspec

from agent.model.objects import ObjectReference

SIMILAR_LIMIT = 10
SIMILAR_WITHIN_S = 600.0
BURST = 25
REFILL_S = 300.0
REMEMBERED = 4096
COMBINED = "(combined from similar events): "

_ObjectId = tuple[str, str, str, str, str]
_SimilarKey = tuple[_ObjectId, str, str]
_SameKey = tuple[_ObjectId, str, str, str, str]
_K = TypeVar("_K")
_V = TypeVar("_V")


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


class _Similar(msgspec.Struct):
    messages: set[str] = msgspec.field(default_factory=set)
    last_at: float = 0.0


class _Bucket(msgspec.Struct):
    tokens: float
    filled_at: float


class Correlator:
    def __init__(self) -> None:
        self._similar: OrderedDict[_SimilarKey, _Similar] = OrderedDict()
        self._events: OrderedDict[_SameKey | _SimilarKey, Event] = OrderedDict()
        self._buckets: OrderedDict[_ObjectId, _Bucket] = OrderedDict()

    def observe(
        self, about: ObjectReference, kind: str, reason: str, message: str, wall: float, monotonic: float
    ) -> Event | None:
        """Count one occurrence."""
        who = (about.kind, about.namespace, about.name, about.uid, about.apiVersion)
        similar_key = (who, kind, reason)
        similar = _remembered(self._similar, similar_key, _Similar())
        if monotonic - similar.last_at > SIMILAR_WITHIN_S:
            similar.messages.clear()
        similar.last_at = monotonic
        key: _SameKey | _SimilarKey = (*similar_key, message, about.fieldPath)
        if len(similar.messages) >= SIMILAR_LIMIT and message not in similar.messages:
            message, key = COMBINED + message, similar_key
        else:
            similar.messages.add(message)
        event = self._events.get(key)
        if event is None:
            event = _remembered(self._events, key, Event(about, kind, reason, message, wall, wall))
        else:
            self._events.move_to_end(key)
            event.count += 1
            event.last_at = wall
            event.message = message
        return event if self._may_speak(who, monotonic) else None

    def _may_speak(self, who: _ObjectId, monotonic: float) -> bool:
        bucket = _remembered(self._buckets, who, _Bucket(BURST, monotonic))
        bucket.tokens = min(BURST, bucket.tokens + (monotonic - bucket.filled_at) / REFILL_S)
        bucket.filled_at = monotonic
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


def _remembered(cache: OrderedDict[_K, _V], key: _K, new: _V) -> _V:
    """The entry of a key, now the youngest; the eldest goes where there are too many."""
    entry = cache.setdefault(key, new)
    cache.move_to_end(key)
    if len(cache) > REMEMBERED:
        cache.popitem(last=False)
    return entry
