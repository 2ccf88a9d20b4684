"""Resizes that wait for room on the node, in the order in which they get it. No I/O.

Who asks for no more than it has comes first, then higher priority, then Guaranteed before Burstable, then who waits
longer. Source: the Kubernetes page "Resize CPU and Memory Resources assigned to Containers" (retried resizes).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agent.pods.admission.claim import Claim
from agent.pods.qos import QosClass

_RANKS = (QosClass.GUARANTEED, QosClass.BURSTABLE, QosClass.BEST_EFFORT)


class Deferred:
    def __init__(self) -> None:
        self._waiting: dict[str, Claim] = {}
        """What each pod wants, by UID; who waits longest is first."""

    def wait(self, uid: str, wanted: Claim) -> None:
        self._waiting[uid] = wanted

    def withdraw(self, uid: str) -> None:
        self._waiting.pop(uid, None)

    def ahead_of(self, uid: str, wanted: Claim, held: Mapping[str, Claim]) -> Iterator[tuple[str, Claim]]:
        """Those who have their turn before this pod. `held`: what each pod has now."""
        waiting = {**self._waiting, uid: wanted}
        since = {one: place for place, one in enumerate(waiting)}

        def turn(one: str) -> tuple[bool, int, int, int]:
            asked, has = waiting[one], held.get(one, Claim()).requests
            grows = any(amount > has.get(name, 0) for name, amount in asked.requests.items())
            return grows, -(asked.priority or 0), _RANKS.index(asked.qos), since[one]

        for one in sorted(waiting, key=turn):
            if one == uid:
                return
            yield one, waiting[one]
