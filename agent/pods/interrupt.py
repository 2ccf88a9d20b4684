"""Stop waiting for what a pod does not need any more: a pull, a hook, a long grace period.

A scope is entered around such a wait. `interrupt` ends every scope that is open, by cancelling what is awaited in it;
the scope swallows that and says so. A cancellation from outside passes through.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec


class Scope(msgspec.Struct):
    interrupted: bool = False


class Interrupt:
    def __init__(self) -> None:
        self._open: set[asyncio.Timeout] = set()

    def interrupt(self) -> None:
        """End every open scope."""
        now = asyncio.get_running_loop().time()
        for timeout in self._open:
            # One that is being ended already may take a few turns of the loop for it.
            if not timeout.expired():
                timeout.reschedule(now)

    @asynccontextmanager
    async def scope(self) -> AsyncIterator[Scope]:
        scope = Scope()
        timeout = asyncio.timeout(None)
        try:
            async with timeout:
                self._open.add(timeout)
                try:
                    yield scope
                finally:
                    self._open.discard(timeout)
        except TimeoutError:
            if not timeout.expired():
                raise
            scope.interrupted = True
