"""CPU use as a rate: what a counter rose by over the time between two readings that somebody asked for.

In: readings of counters by name, as they come. Out: nanocores. Nothing is read in the background: of a counter that
nobody has asked for lately there is no rate until it has been read twice.
"""

from __future__ import annotations

from collections.abc import Iterable

SHORTEST_NS = 1_000_000_000
"""Below it the kernel's own granularity is too much of the difference: the rate before stands."""
LONGEST_NS = 120_000_000_000
"""A mean over more says nothing of now."""


class Rates:
    def __init__(self) -> None:
        self._last: dict[str, tuple[int, int]] = {}
        self._rates: dict[str, int] = {}

    def is_due(self, name: str, at_ns: int) -> bool:
        """There is no reading that a rate could begin from."""
        last = self._last.get(name)
        return last is None or not 0 <= at_ns - last[0] <= LONGEST_NS

    def rate(self, name: str, at_ns: int, cpu_ns: int) -> int | None:
        """Nanocores; None where this is the first reading, or the first after a long while."""
        before = self._last.get(name)
        if before is not None:
            passed, used = at_ns - before[0], cpu_ns - before[1]
            if 0 <= passed < SHORTEST_NS and used >= 0:
                return self._rates.get(name)
            if SHORTEST_NS <= passed <= LONGEST_NS and used >= 0:
                self._rates[name] = used * 1_000_000_000 // passed
            else:
                self._rates.pop(name, None)
        self._last[name] = (at_ns, cpu_ns)
        return self._rates.get(name)

    def keep_only(self, names: Iterable[str]) -> None:
        wanted = set(names)
        for gone in self._last.keys() - wanted:
            del self._last[gone]
            self._rates.pop(gone, None)
