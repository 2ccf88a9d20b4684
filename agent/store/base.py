"""The durable record's contract: keys are slash-separated paths, values are bytes, every change has a revision.

A write returns only after it is durable. `watch` hands on changes after they are, in order of revision. Revisions of
one record only grow; they need not follow each other without a gap. What a backend can't do now raises Retryable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

BATCH_LIMIT = 100
"""Changes that every backend takes at once (etcd's own limit is 128); SQLite and Redis take more."""

CLUSTER = "cluster/identity"
"""Key of the cluster that the pods of the record belong to (`agent.kube.cluster`)."""


class Row(msgspec.Struct, frozen=True):
    key: str
    value: bytes
    revision: int


class Put(msgspec.Struct, frozen=True):
    key: str
    value: bytes


class Delete(msgspec.Struct, frozen=True):
    key: str


class Change(msgspec.Struct, frozen=True):
    """One committed change; `value` is None for a deletion."""

    key: str
    value: bytes | None
    revision: int


class Store(Protocol):
    async def get(self, key: str) -> Row | None:
        """The row of a key, None where there is none."""

    async def list(self, prefix: str) -> tuple[Row, ...]:
        """All rows whose key starts with `prefix`, in order of key, as they were at one moment."""

    async def put(self, key: str, value: bytes) -> int:
        """Write durably; the new revision."""

    async def delete(self, key: str) -> int:
        """Remove durably; the revision. No error where there is nothing to remove."""

    async def batch(self, changes: Sequence[Put | Delete]) -> int:
        """All of them or none, in one revision. Of two changes of one key the last one counts."""

    def watch(self, prefix: str) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        """Changes below `prefix` that are committed after the context was entered; ends when the store is closed.

        Iterating raises Retryable where the backend went away, Gone where changes were missed: list and watch again.
        """

    async def close(self) -> None:
        """Finish pending writes and release the file or connection."""


def last_of_each(changes: Iterable[Put | Delete]) -> dict[str, Put | Delete]:
    """By key, in the order in which they count."""
    last: dict[str, Put | Delete] = {}
    for change in changes:
        last.pop(change.key, None)
        last[change.key] = change
    return last
