"""Whether pods start now: what can wait had better wait then, for the machine has few processors. A leaf.

In: what begins and ends of starts. Out: whether there is a rush, and how long to let it go first.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_RUSH_S = 30.0
"""A machine on which something starts all the time has to be cleared too."""
CALM_S = 0.2
"""Between the steps of one pod's start nothing starts for less than this."""
LONGEST_HOLD_S = 15.0
"""Nobody waits longer than this for news."""


class Rush:
    """One for an agent. A rush is over once nothing has started, or waited for its start, for `CALM_S`."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._wanted = 0
        self._since = self._calm_since = float("-inf")

    def join(self) -> None:
        """Something wants to start."""
        if not self._wanted and self._monotonic() - self._calm_since >= CALM_S:
            self._since = self._monotonic()
        self._wanted += 1

    def leave(self) -> None:
        """It has, or wants to no more."""
        self._wanted -= 1
        self._calm_since = self._monotonic()

    @property
    def is_on(self) -> bool:
        """Something starts or waits for it, as after a reboot; not on a machine where that goes on and on."""
        return self._wanted > 0 and self._monotonic() - self._since < LONGEST_RUSH_S

    @property
    def hold_s(self) -> float:
        """What can wait looks again after so many seconds; 0: it goes now."""
        now = self._monotonic()
        if now - self._since >= LONGEST_HOLD_S:
            return 0.0
        return CALM_S if self._wanted else max(0.0, self._calm_since + CALM_S - now)
