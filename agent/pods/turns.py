"""So many starts at the same time: more at once slows the runtime down.

In: whoever makes a sandbox (`new`), or a container in one that is there (`begun`), inside `async with`. Out: its turn.
What was begun goes first, so that of many pods the first run long before the last is begun; else first come, first
served. Whoever has a turn or waits for one is part of the rush.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from agent.rush import Rush

_Waiting = deque[asyncio.Future[None]]


class StartTurns:
    def __init__(self, at_once: int, rush: Rush) -> None:
        self._free = at_once
        self._rush = rush
        self._queues: tuple[_Waiting, _Waiting] = (deque(), deque())
        begun, new = self._queues
        self.begun = Turn(self, begun)
        self.new = Turn(self, new)

    @property
    def rush(self) -> bool:
        return self._rush.is_on

    async def take(self, queue: _Waiting) -> None:
        self._rush.join()
        try:
            await self._turn(queue)
        except BaseException:
            self._rush.leave()
            raise

    def give_back(self) -> None:
        self._rush.leave()
        self._pass_on()

    async def _turn(self, queue: _Waiting) -> None:
        if self._free:
            self._free -= 1
            return
        mine = asyncio.get_running_loop().create_future()
        queue.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.cancelled():
                with suppress(ValueError):  # passed over already
                    queue.remove(mine)
            else:
                self._pass_on()  # it was given in the same moment
            raise

    def _pass_on(self) -> None:
        for queue in self._queues:
            while queue:
                if not (first := queue.popleft()).done():
                    first.set_result(None)
                    return
        self._free += 1


class Turn:
    """Of one kind; any number of tasks may be inside or wait."""

    def __init__(self, turns: StartTurns, queue: _Waiting) -> None:
        self._turns = turns
        self._queue = queue

    async def __aenter__(self) -> None:
        await self._turns.take(self._queue)

    async def __aexit__(self, *_: object) -> None:
        self._turns.give_back()
