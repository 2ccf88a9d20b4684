"""The agent's own events of late, so that `kubectl describe` tells the story while the API server is away.

In: what the agent's parts record. Out: v1 Events, the same thing again as a count; the oldest go beyond a bound. What
is recorded goes on to whoever told the API server before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from agent.clock import Clock
from agent.model.objects import ObjectReference
from agent.model.status import timestamp

KEPT = 500
COMPONENT = "kubelet"


class Events(Protocol):
    def record(
        self,
        about: ObjectReference,
        kind: str,
        reason: str,
        message: str,
        annotations: Mapping[str, str] | None = None,
    ) -> None: ...


class _Event(msgspec.Struct):
    name: str
    about: ObjectReference
    kind: str
    reason: str
    message: str
    first_at: float
    last_at: float
    count: int = 1


class RecentEvents:
    """Fits `agent.pods.ports.Events`."""

    def __init__(self, inner: Events, node_name: str, clock: Clock) -> None:
        self._inner = inner
        self._node = node_name
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str, str, str, str], _Event] = OrderedDict()
        self._named = 0
        self.changed: Callable[[], None] = lambda: None

    def record(
        self,
        about: ObjectReference,
        kind: str,
        reason: str,
        message: str,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        self._inner.record(about, kind, reason, message, annotations)
        now = self._clock.wall()
        key = (about.kind, about.uid, about.fieldPath, reason, message)
        if (known := self._kept.get(key)) is not None:
            known.count += 1
            known.last_at = now
            self._kept.move_to_end(key)
        else:
            self._named = max(int(now * 1e9), self._named + 1)
            name = f"{about.name}.{self._named:016x}"
            self._kept[key] = _Event(name, about, kind, reason, message, now, now)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self.changed()

    def all(self) -> Iterable[dict[str, Any]]:
        for event in self._kept.values():
            yield {
                "kind": "Event",
                "apiVersion": "v1",
                "metadata": {
                    "name": event.name,
                    "namespace": event.about.namespace or "default",
                    "uid": event.name,
                    "creationTimestamp": timestamp(event.first_at),
                },
                "involvedObject": {"apiVersion": event.about.apiVersion, **msgspec.to_builtins(event.about)},
                "reason": event.reason,
                "message": event.message,
                "source": {"component": COMPONENT, "host": self._node},
                "firstTimestamp": timestamp(event.first_at),
                "lastTimestamp": timestamp(event.last_at),
                "count": event.count,
                "type": event.kind,
                "eventTime": None,
                "reportingComponent": COMPONENT,
                "reportingInstance": self._node,
            }
