"""Measure relists as a kubelet does: what one took, and how long it was since the one before."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import TypeVar

from agent import own_metrics

T = TypeVar("T")


class Relisting:
    def __init__(self) -> None:
        self._last = 0.0

    async def measure(self, relist: Awaitable[T]) -> T:
        began = time.monotonic()
        if self._last:
            own_metrics.PLEG_INTERVAL.observe(began - self._last)
        self._last = began
        found = await relist
        own_metrics.PLEG_DURATION.observe(time.monotonic() - began)
        at = time.time()
        own_metrics.PLEG_LAST_SEEN.read = lambda: {(): at}
        return found
