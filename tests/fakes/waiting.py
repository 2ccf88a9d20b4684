"""Waiting for what others do: patiently, for a busy machine makes all of it late; a test that passes waits little."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 60.0
"""Real seconds after which a test may say that something does not happen."""


async def eventually(holds: Callable[[], object]) -> None:
    """Wait, shortly and in real time, for what other tasks, threads and connections do."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it did not come true"
        await asyncio.sleep(0.001)
