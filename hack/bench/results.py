"""What was measured of one agent: times, single figures, its memory over the run; and whether it was quiet."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

NOISY = 0.3
"""Times whose middle half is wider than this part of their median say more of the machine than of the agent."""


@dataclass(slots=True)
class Results:
    """Names end in their unit. What is in `times` is a median in the table, `values` are as they are."""

    times: dict[str, list[float]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    by_chance: set[str] = field(default_factory=set)
    """Times that are wide by their nature: a probe looks once a second, whenever the change comes."""
    kinds: dict[str, float] = field(default_factory=dict)
    """Requests a pod's life, by verb and resource."""
    memory: list[tuple[float, float]] = field(default_factory=list)
    """Seconds while it was measured, RSS in MiB."""

    def add(self, name: str, seconds: float, *, by_chance: bool = False) -> None:
        """One more time, kept in milliseconds."""
        self.sample(name, 1000 * seconds)
        if by_chance:
            self.by_chance.add(name)

    def sample(self, name: str, value: float) -> None:
        """One more of a figure that is measured several times, in the unit that its name ends in."""
        self.times.setdefault(name, []).append(value)

    def figures(self) -> dict[str, float]:
        """One number each."""
        return {**{name: statistics.median(times) for name, times in self.times.items()}, **self.values}

    def noisy(self) -> dict[str, float]:
        """Spreads that are too wide to call the median a result."""
        spreads = {name: spread(times) for name, times in self.times.items() if name not in self.by_chance}
        return {name: wide for name, wide in spreads.items() if wide > NOISY}

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "by_chance": sorted(self.by_chance), "noisy": self.noisy()}


def spread(times: list[float]) -> float:
    """The width of the middle half, as a part of the median; 0 for fewer than four times."""
    if len(times) < 4:
        return 0.0
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / middle if middle else 0.0


def percentile(times: list[float], part: float) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
