"""One resource's objects with revisions of our own, so that they can be listed, and watched from a list on.

In: all objects as they are now, whenever somebody looks or something changed. Out: a list with its revision, and what
changed since a revision; one that is too old, or of another life of the agent, is Gone, and the client lists again.
Nothing is held before somebody asks.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from agent.errors import Gone

HISTORY = 1000
"""Changes that a watch may lag behind."""

Key = tuple[str, str]
"""Namespace (empty for what has none) and name."""
Json = dict[str, Any]


class Revisions:
    """Of all collections together, as an API server's are: they grow, also from one life of the agent to the next."""

    def __init__(self, unix_s: float) -> None:
        self.first = self.now = int(unix_s * 1000)

    def next(self) -> int:
        self.now += 1
        return self.now


class Item(msgspec.Struct, frozen=True):
    key: Key
    raw: bytes
    """With our revision as its resourceVersion."""
    revision: int
    digest: bytes


class Change(msgspec.Struct, frozen=True):
    revision: int
    before: Item | None
    now: Item | None
    """None: it is gone."""


class Collection:
    """`read` gives every object as it is now, as JSON without a resourceVersion that matters."""

    def __init__(self, read: Callable[[], Awaitable[Mapping[Key, bytes]]], revisions: Revisions) -> None:
        self._read = read
        self._revisions = revisions
        self._items: dict[Key, Item] = {}
        self._history: deque[Change] = deque(maxlen=HISTORY)
        self._oldest = revisions.first
        self._refreshing = asyncio.Lock()
        self._news = asyncio.Event()
        self._is_known = False

    async def refresh(self) -> bool:
        """Look at what is; whether anything changed. What `read` raises goes on."""
        async with self._refreshing:
            found = await self._read()
            changes = [self._put(key, raw) for key, raw in found.items() if self._differs(key, raw)]
            changes += [
                Change(self._revisions.next(), self._items.pop(key), None) for key in self._items.keys() - found
            ]
        if not self._is_known:
            # The first look made no changes: there was nobody to see them.
            self._is_known, changes = True, []
            self._oldest = self._revisions.now
        for change in changes:
            if len(self._history) == HISTORY:
                self._oldest = self._history[0].revision
            self._history.append(change)
        if changes:
            self._news.set()
            self._news = asyncio.Event()
        return bool(changes)

    async def list(self) -> tuple[Sequence[Item], int]:
        """In order of key, and the revision that a watch goes on from."""
        await self.refresh()
        return sorted(self._items.values(), key=lambda item: item.key), self._revisions.now

    def get(self, key: Key) -> Item | None:
        """As of the last look."""
        return self._items.get(key)

    def since(self, revision: int) -> Sequence[Change]:
        """Raises Gone."""
        if not self._oldest <= revision <= self._revisions.now:
            raise Gone(f"too old resource version: {revision} ({self._oldest})")
        return [change for change in self._history if change.revision > revision]

    @property
    def now(self) -> int:
        return self._revisions.now

    async def changed(self, since: int) -> None:
        """Return once there is a change after this revision."""
        while not (self._history and self._history[-1].revision > since):
            await self._news.wait()

    def _differs(self, key: Key, raw: bytes) -> bool:
        known = self._items.get(key)
        return known is None or known.digest != _digest(raw)

    def _put(self, key: Key, raw: bytes) -> Change:
        revision = self._revisions.next()
        item = Item(key, _with_revision(raw, revision), revision, _digest(raw))
        change = Change(revision, self._items.get(key), item)
        self._items[key] = item
        return change


def _digest(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=16).digest()


def _with_revision(raw: bytes, revision: int) -> bytes:
    found = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    meta = msgspec.json.decode(found.get("metadata", b"{}"), type=dict[str, msgspec.Raw])
    meta["resourceVersion"] = msgspec.Raw(b'"%d"' % revision)
    return msgspec.json.encode({**found, "metadata": meta})
