"""The agent's clock: what `agent.known_time` believes, kept in the record so that it outlives restarts and power cuts.

In: the machine's clocks and the API server's dates. Out: a `Clock` whose wall time is the machine's as long as that can
be true, and how long ago a moment was. Written each minute, and soon after a step. Never waits, never sets a clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from loguru import logger

from agent.clock import SystemClock, uptime
from agent.errors import Retryable
from agent.known_time import KnownTime, Reading, begun, believed, heard, kept, looked
from agent.store.base import Store

KEY = "clock"
WRITE_EVERY_S = 60.0
"""What a power cut may cost of the known time."""
WRITE_SOON_S = 1.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_decoder = msgspec.json.Decoder(KnownTime)


class Timekeeper(SystemClock):
    """Fits `agent.clock.Clock`. Made by `load`; one owner calls `run`."""

    def __init__(self, store: Store, known: KnownTime, read: Callable[[], Reading]) -> None:
        self._store = store
        self._known = known
        self._read = read
        self._stepped = asyncio.Event()
        self._doubted = False

    @classmethod
    async def load(cls, store: Store, *, corrigible: bool, read: Callable[[], Reading] | None = None) -> Timekeeper:
        """`corrigible`: there is an API server, whose dates `heard` is to be told."""
        read = read or _reader()
        last: KnownTime | None = None
        try:
            row = await store.get(KEY)
            last = None if row is None else _decoder.decode(row.value)
        except (Retryable, msgspec.DecodeError) as error:
            logger.warning("the last known time can't be read, the machine's clock is believed: {}", error)
        made = cls(store, begun(last, read(), corrigible=corrigible), read)
        made.wall()
        return made

    def wall(self) -> float:
        """Unix seconds as far as they are known."""
        now = self._read()
        self._take(looked(self._known, now))
        unix = believed(self._known, now)
        if (unix != now.wall) is not self._doubted:
            self._doubted = not self._doubted
            if self._doubted:
                logger.warning(
                    "the machine's clock shows {}, which can't be: going by {}", _words(now.wall), _words(unix)
                )
            else:
                logger.info("the machine's clock is right again: {}", _words(now.wall))
        return unix

    def since(self, unix_s: float) -> float:
        """Seconds since the node wrote that moment, whatever its clock did meanwhile."""
        now = self._read()
        self._take(looked(self._known, now))
        return self._known.since(unix_s, now.up)

    def heard(self, server_unix: float) -> None:
        """The API server's clock shows that."""
        now = self._read()
        self._take(heard(looked(self._known, now), now, server_unix))

    async def run(self) -> None:
        """Keep the record up to date, for as long as the agent lives, and at its end."""
        try:
            while True:
                await self._write()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(WRITE_EVERY_S):
                        await self._stepped.wait()
                        await asyncio.sleep(WRITE_SOON_S)
        finally:
            await asyncio.shield(self._write())

    async def _write(self) -> None:
        self._stepped.clear()
        self.wall()
        try:
            await self._store.put(KEY, msgspec.json.encode(kept(self._known, self._read().up)))
        except Retryable as error:
            logger.warning("the known time is not recorded now: {}", error)

    def _take(self, known: KnownTime) -> None:
        if known is not self._known:
            self._known = known
            self._stepped.set()


def _reader() -> Callable[[], Reading]:
    boot = BOOT_ID.read_text().strip()
    return lambda: Reading(boot, uptime(), time.time())


def _words(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
