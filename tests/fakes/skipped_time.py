"""An event loop whose clock a test moves on by hand: real sockets and threads keep their own time.

Where `tests.fakes.virtual_time` jumps by itself and so allows nothing but timers, here time passes as it does, and
`skip` adds to it: every timer of the loop that has become due then fires. `now` is that time, for code under test.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

WALL = 1_700_000_000.0


class SkippedTimeLoop(asyncio.SelectorEventLoop):
    skipped_s = 0.0

    def time(self) -> float:
        return super().time() + self.skipped_s


class SkippedTime:
    """A `Clock` by such a loop. Its wall clock shows `WALL` when monotonic time is that of its making."""

    def __init__(self) -> None:
        self._wall_offset = WALL - self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return self.monotonic() + self._wall_offset

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def skip(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SkippedTimeLoop)
        loop.skipped_s += seconds


def with_skipped_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on such a loop."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=SkippedTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


async def eventually(holds: Callable[[], object]) -> None:
    """Wait, shortly and in real time, for what other tasks do."""
    for _ in range(3000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not come true")


async def quiet(while_s: float = 0.02) -> None:
    """Give what must not happen the time to happen."""
    await asyncio.sleep(while_s)
