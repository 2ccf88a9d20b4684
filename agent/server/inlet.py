"""What a client sends on one stream, between the connection's reader and whoever takes it.

In: pieces as they come; one that finds the inlet full waits, and the connection with it. Out: bytes, then their end.
"""

from __future__ import annotations

import asyncio

CAPACITY_BYTES = 256 * 1024


class Inlet:
    def __init__(self) -> None:
        self._held = bytearray()
        self._changed = asyncio.Condition()
        self._is_over = False
        self._is_unwanted = False

    async def feed(self, piece: bytes) -> None:
        """Returns when it is inside."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._held) < CAPACITY_BYTES or self._is_unwanted or self._is_over)
            if not self._is_unwanted and not self._is_over:
                self._held += piece
                self._changed.notify_all()

    async def end(self) -> None:
        async with self._changed:
            self._is_over = True
            self._changed.notify_all()

    async def discard(self) -> None:
        """Nobody will read any more: what comes is dropped."""
        async with self._changed:
            self._is_unwanted = True
            self._held.clear()
            self._changed.notify_all()

    async def read(self, limit: int = 65536) -> bytes:
        """At most `limit` bytes; b"" at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._held or self._is_over or self._is_unwanted)
            taken = bytes(self._held[:limit])
            del self._held[:limit]
            self._changed.notify_all()
            return taken
