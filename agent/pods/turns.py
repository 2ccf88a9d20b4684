"""So many starts at the same time: more at once slows the runtime down.

In: whoever makes a sandbox or a container, inside `async with`. Out: its turn, first come, first served. Whoever has a
turn or waits for one is part of the rush.
"""

from __future__ import annotations

import asyncio

from agent.rush import Rush


class StartTurns:
    def __init__(self, at_once: int, rush: Rush) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._rush = rush

    async def __aenter__(self) -> None:
        self._rush.join()
        try:
            await self._turns.acquire()
        except BaseException:
            self._rush.leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._rush.leave()
        self._turns.release()

    @property
    def rush(self) -> bool:
        return self._rush.is_on
