"""Time, as something that a test can hold still.

A leaf. `monotonic` measures waits and ages: it never jumps. `wall` is what goes into objects and logs: on a machine
at the edge it may be wrong by years until NTP answers, so nothing is ever decided by comparing it with a saved value.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds since some moment in the past."""

    def wall(self) -> float:
        """Unix seconds."""

    async def sleep(self, seconds: float) -> None:
        """Return after that many monotonic seconds."""


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def rfc3339_micro(unix_s: float) -> str:
    """metav1.MicroTime: exactly six digits, UTC."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
