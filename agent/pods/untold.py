"""What changed of pods since the API server last took their status, until it is sure that the link is there.

In: each change of a status while the link seems to be up, the statuses that were taken, and the word that the link is
lost. Out: then, and only then, the changes with their own times, for the journal: a link is known to be dead seconds
after it died. One pod's changes are few; the eldest go first.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from agent.model.objects import ObjectReference
from agent.model.status import PodStatus

KEPT = 20
"""Statuses of one pod."""


class _Change(msgspec.Struct, frozen=True):
    status: PodStatus
    about: ObjectReference
    said: tuple[str, ...]
    at: float


class Untold:
    def __init__(self, tell: Callable[[ObjectReference, str, float], None], wall: Callable[[], float]) -> None:
        """`tell` is given the pod, what changed and when (Unix seconds), in the order of time."""
        self._tell = tell
        self._wall = wall
        self._changes: dict[str, list[_Change]] = {}

    def changed(self, uid: str, about: ObjectReference, status: PodStatus, said: tuple[str, ...]) -> None:
        changes = self._changes.setdefault(uid, [])
        changes.append(_Change(status, about, said, self._wall()))
        del changes[:-KEPT]

    def told(self, uid: str, status: PodStatus) -> None:
        """The API server has that status: what led to it is no longer of interest."""
        changes = self._changes.get(uid, [])
        at = next((place for place, change in enumerate(changes) if change.status is status), None)
        if at is not None:
            del changes[: at + 1]
        if not changes:
            self.forget(uid)

    def forget(self, uid: str) -> None:
        self._changes.pop(uid, None)

    def lost(self) -> None:
        """The link is dead, and was for a while."""
        every = sorted((c for changes in self._changes.values() for c in changes), key=lambda change: change.at)
        self._changes.clear()
        for change in every:
            for said in change.said:
                self._tell(change.about, said, change.at)
