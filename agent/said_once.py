"""What is said once for as long as it stays: faults, files, UIDs.

In: at each look everything that stands. Out: what is new in it. What went and came back is new again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class SaidOnce(Generic[T]):
    def __init__(self) -> None:
        self._said: frozenset[T] = frozenset()

    def new(self, standing: Iterable[T]) -> tuple[T, ...]:
        """Those that did not stand at the last look, in their order, each once."""
        now = dict.fromkeys(standing)
        said, self._said = self._said, frozenset(now)
        return tuple(one for one in now if one not in said)
