"""Time, as something that a test can hold still.

A leaf. `monotonic` measures waits and ages: it never jumps. `wall` is what goes into objects and logs: on a machine
at the edge it may be wrong by years until NTP answers. What is decided by saved times goes by `agent.known_time`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds since some moment in the past."""

    def wall(self) -> float:
        """Unix seconds."""

    async def sleep(self, seconds: float) -> None:
        """Return after that many monotonic seconds."""


class NodeClock(Clock, Protocol):
    def since(self, unix_s: float) -> float:
        """Seconds that have passed since a moment that `wall` gave, in this life of the agent or before."""


class SystemClock:
    """The machine's clocks as they are."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def since(self, unix_s: float) -> float:
        return max(0.0, time.time() - unix_s)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def sleep_unless(event: asyncio.Event, sleeping: Awaitable[None]) -> bool:
    """Return when the sleep is over or the event is set, whichever comes first; whether the event was."""

    async def slept() -> None:
        await sleeping

    async with asyncio.TaskGroup() as tasks:
        due = tasks.create_task(slept())
        called = tasks.create_task(event.wait())
        await asyncio.wait((due, called), return_when=asyncio.FIRST_COMPLETED)
        is_set = called.done()
        due.cancel()
        called.cancel()
    return is_set


def uptime() -> float:
    """Seconds since the machine's start, those of a suspension too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def age_by_wall(unix_ns: int) -> float:
    """Seconds since another program of this machine wrote that moment, after the machine's start."""
    return plausible_age(time.time() - unix_ns / 1e9, uptime())


def plausible_age(age_s: float, uptime_s: float) -> float:
    """Below zero or beyond the machine's own age the clock was set in between: then nothing of the age is known, and 0
    is the careful answer."""
    return age_s if 0 <= age_s <= uptime_s else 0.0


def rfc3339_micro(unix_s: float) -> str:
    """metav1.MicroTime: exactly six digits, UTC."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
