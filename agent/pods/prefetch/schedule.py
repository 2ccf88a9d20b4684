"""When images may be pulled ahead, and how much of them. Pure.

In: times and bytes. Out: whether to go on, and how long to wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

BURST_S = 2.0
"""So much may come at once after a pause, as seconds of the rate: a pause costs a connection and a question."""

Window = tuple[int, int]
"""Minutes since midnight: from the first on, up to the second, past midnight where that is the smaller one."""


def is_open(windows: Iterable[Window], local: datetime) -> bool:
    """Whether a time of day lies in one of them; without any, always.

    Asked again and again, never calculated ahead: so a day of 23 or 25 hours needs no care.
    """
    minute = local.hour * 60 + local.minute
    listed = tuple(windows)
    return not listed or any(
        begin <= minute < end if begin < end else minute >= begin or minute < end for begin, end in listed
    )


def written(windows: Iterable[Window]) -> str:
    """As people write them."""
    return ",".join(
        "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (begin, end)) for begin, end in windows
    )


class Budget:
    """A token bucket that may go into debt: a runtime tells only afterwards how much came.

    `rate`: bytes a second; 0: no limit.
    """

    def __init__(self, rate: int, now: float) -> None:
        self.rate = rate
        self._burst = rate * BURST_S
        self._level = self._burst
        self._at = now

    @property
    def is_limited(self) -> bool:
        return self.rate > 0

    def spend(self, size: int, now: float) -> bool:
        """`size` bytes came. False: no more may come now."""
        self._fill(now)
        self._level -= size
        return not self.is_limited or self._level > 0

    def wait_s(self, now: float) -> float:
        """How long to wait for the next burst."""
        if not self.is_limited:
            return 0.0
        self._fill(now)
        missing = self._burst - self._level
        return missing / self.rate if missing >= 1 else 0.0  # less than a byte is a rounding error

    def _fill(self, now: float) -> None:
        self._level = min(self._burst, self._level + (now - self._at) * self.rate)
        self._at = now
