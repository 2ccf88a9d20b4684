"""Counters, gauges and histograms of the agent itself, and the registry that writes them out.

In: what the parts of the agent count. Out: Prometheus' text. Numbers begin at zero with each start of the agent, as a
kubelet's own do. Used from the event loop only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from agent.exposition import Exposition, Kind, number

Values = Mapping[tuple[str, ...], float]


class Instrument(Protocol):
    def write(self, out: Exposition) -> None: ...


class Counter:
    def __init__(self, name: str, about: str, *labels: str) -> None:
        self.name = name
        self._about = about
        self._labels = labels
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0}

    def inc(self, *labels: str, by: float = 1) -> None:
        self._values[labels] = self._values.get(labels, 0) + by

    def value(self, *labels: str) -> float:
        return self._values.get(labels, 0)

    def forget(self, matches: Callable[[Mapping[str, str]], bool]) -> None:
        """What these labels stand for is gone."""
        for key in [key for key in self._values if matches(dict(zip(self._labels, key, strict=True)))]:
            del self._values[key]

    def write(self, out: Exposition) -> None:
        out.family(self.name, Kind.COUNTER, self._about)
        for key, value in self._values.items():
            out.sample(value, dict(zip(self._labels, key, strict=True)))


class Gauge:
    """Read when somebody asks; `read` gives values by label values, none where nobody can tell."""

    def __init__(self, name: str, about: str, *labels: str, kind: Kind = Kind.GAUGE) -> None:
        self.name = name
        self._about = about
        self._labels = labels
        self._kind = kind
        self.read: Callable[[], Values] = dict

    def write(self, out: Exposition) -> None:
        out.family(self.name, self._kind, self._about)
        for key, value in self.read().items():
            out.sample(value, dict(zip(self._labels, key, strict=True)))


class Histogram:
    """`bounds` in ascending order, without the infinite one."""

    def __init__(self, name: str, about: str, bounds: Sequence[float], *labels: str) -> None:
        self.name = name
        self._about = about
        self._bounds = bounds
        self._labels = labels
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        if not labels:
            self._start(())

    def observe(self, value: float, *labels: str) -> None:
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._start(labels)
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[labels] += value

    def count(self, *labels: str) -> int:
        return sum(self._counts.get(labels, ()))

    def total(self, *labels: str) -> float:
        return self._sums.get(labels, 0)

    def forget(self, matches: Callable[[Mapping[str, str]], bool]) -> None:
        """What these labels stand for is gone."""
        for key in [key for key in self._counts if matches(dict(zip(self._labels, key, strict=True)))]:
            del self._counts[key], self._sums[key]

    def write(self, out: Exposition) -> None:
        out.family(self.name, Kind.HISTOGRAM, self._about)
        for key, counts in self._counts.items():
            labels = dict(zip(self._labels, key, strict=True))
            total = 0
            for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
                total += count
                out.sample(total, {**labels, "le": number(bound)}, suffix="_bucket")
            out.sample(self._sums[key], labels, suffix="_sum")
            out.sample(total, labels, suffix="_count")

    def _start(self, labels: tuple[str, ...]) -> list[int]:
        self._counts[labels] = [0] * (len(self._bounds) + 1)
        self._sums[labels] = 0
        return self._counts[labels]


def text_of(instruments: Iterable[Instrument]) -> str:
    out = Exposition()
    for instrument in instruments:
        instrument.write(out)
    return out.text()
