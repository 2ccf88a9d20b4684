"""The node's addresses, which can change while it runs: one value that everybody holds and that is always current."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload


class NodeAddresses(Sequence[str]):
    """Primary first. Reads like a tuple."""

    def __init__(self, now: Iterable[str]) -> None:
        self._now = tuple(now)

    def take(self, now: Iterable[str]) -> bool:
        """Whether they are others than before."""
        before, self._now = self._now, tuple(now)
        return self._now != before

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self._now[index]

    def __len__(self) -> int:
        return len(self._now)

    def __repr__(self) -> str:
        return repr(self._now)
