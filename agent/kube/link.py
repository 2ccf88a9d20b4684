"""Whether the API server answers, and what hangs on that: pauses end with its return, dead waits are broken off.

In: word of every call, whether it was answered. Out: `up`, pauses that end early when it is back, and a push for calls
and watches that wait for bytes which a dead link has swallowed: without it a pod's status would be told only when the
kernel has given the old connection up.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import msgspec

from agent.clock import sleep_unless

SILENT_S = 3.0
"""A watch that had a word this short ago is not broken off because a call had none."""
HURRY_S = 3.0
"""After the return, for this long, nobody pauses longer than `HURRIED_S`."""
HURRIED_S = 0.3


class Wait(msgspec.Struct, eq=False):
    """Of one call, or of a stream's next piece."""

    stream: bool = False
    since: float = 0.0
    deadline: asyncio.Timeout | None = None
    broken_off: bool = False
    """It says nothing of the link that this wait had no answer."""


class Link:
    """Make it inside the running loop."""

    def __init__(self) -> None:
        self.up = True
        self.down = asyncio.Event()
        """Set while it is."""
        self._back = asyncio.Event()
        self._back.set()
        self._back_at: float | None = None
        self._down_at = self._down_before_s = 0.0
        self._waiting: set[Wait] = set()
        self._told: list[Callable[[], None]] = []
        self._told_of_loss: list[Callable[[], None]] = []

    @property
    def down_s(self) -> float:
        """How long nothing answered, all outages of this agent's life together."""
        return self._down_before_s + (0.0 if self.up else asyncio.get_running_loop().time() - self._down_at)

    def on_return(self, told: Callable[[], None]) -> None:
        """Call `told` whenever the API server answers again."""
        self._told.append(told)

    def on_loss(self, told: Callable[[], None]) -> None:
        """Call `told` whenever the API server answers no more."""
        self._told_of_loss.append(told)

    @contextmanager
    def held(self, wait: Wait, deadline: asyncio.Timeout) -> Iterator[None]:
        """While inside, the wait may be broken off by moving its (entered) deadline."""
        wait.deadline, wait.since = deadline, asyncio.get_running_loop().time()
        self._waiting.add(wait)
        try:
            yield
        finally:
            self._waiting.discard(wait)

    def lost(self) -> bool:
        """A call had no answer. True: that is news. Watches that are silent too wait for nothing."""
        if not self.up:
            return False
        self.up, self._back_at = False, None
        self._back.clear()
        self.down.set()
        now = self._down_at = asyncio.get_running_loop().time()
        self._break_off(lambda wait: wait.stream and now - wait.since >= SILENT_S)
        for told in self._told_of_loss:
            told()
        return True

    def answered(self, began: float) -> bool:
        """A call that began then had an answer. True: that is news. What waits since before is asked again."""
        if self.up:
            return False
        self._down_before_s = self.down_s
        self.up, self._back_at = True, asyncio.get_running_loop().time()
        self.down.clear()
        self._back.set()
        self._break_off(lambda wait: wait.since < began)
        for told in self._told:
            told()
        return True

    async def pause(self, seconds: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Sleep, at most until the API server answers again."""
        if self.up:
            await sleep(min(seconds, HURRIED_S) if self._just_back() else seconds)
            return
        if await sleep_unless(self._back, sleep(seconds)):
            # All who waited come at once otherwise.
            await sleep(min(seconds, HURRIED_S * random.random()))  # noqa: S311

    def _just_back(self) -> bool:
        return self._back_at is not None and asyncio.get_running_loop().time() - self._back_at < HURRY_S

    def _break_off(self, chosen: Callable[[Wait], bool]) -> None:
        now = asyncio.get_running_loop().time()
        for wait in tuple(self._waiting):
            if wait.deadline is not None and chosen(wait) and not wait.deadline.expired():
                wait.broken_off = True
                wait.deadline.reschedule(now)
