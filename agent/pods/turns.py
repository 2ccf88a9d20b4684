"""So many starts at the same time: more at once slows the runtime down.

In: whoever makes a sandbox or a container, inside `async with`. Out: its turn, first come, first served; and whether
there is a rush, in which what can wait had better wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LONGEST_RUSH_S = 30.0
"""A machine on which something starts all the time has to be cleared too."""


class StartTurns:
    def __init__(self, at_once: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._monotonic = monotonic
        self._wanted = 0
        self._since = 0.0

    async def __aenter__(self) -> None:
        if not self._wanted:
            self._since = self._monotonic()
        self._wanted += 1
        try:
            await self._turns.acquire()
        except BaseException:
            self._wanted -= 1
            raise

    async def __aexit__(self, *_: object) -> None:
        self._wanted -= 1
        self._turns.release()

    @property
    def rush(self) -> bool:
        """Something has its turn or waits for it, as after a reboot; not one that goes on and on."""
        return self._wanted > 0 and self._monotonic() - self._since < LONGEST_RUSH_S
