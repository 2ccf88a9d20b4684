"""The durable record's contract: keys are slash-separated paths, values are bytes, every change has a revision.

A write returns only after it is durable. `watch` hands on changes after they are, in order of revision.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


@dataclass(frozen=True, slots=True)
class Change:
    """One committed change; `value` is None for a deletion."""

    key: str
    value: bytes | None
    revision: int


class Store(Protocol):
    async def get(self, key: str) -> Row | None:
        """The row of a key, None where there is none."""

    async def list(self, prefix: str) -> tuple[Row, ...]:
        """All rows whose key starts with `prefix`, in order of key."""

    async def put(self, key: str, value: bytes) -> int:
        """Write durably; the new revision."""

    async def delete(self, key: str) -> int:
        """Remove durably; the revision. No error where there is nothing to remove."""

    async def batch(self, changes: Sequence[Put | Delete]) -> int:
        """All of them or none, in one revision."""

    def watch(self, prefix: str) -> AsyncIterator[Change]:
        """Changes below `prefix` committed from this call on; ends when the store is closed."""

    async def close(self) -> None:
        """Finish pending writes and release the file or connection."""
