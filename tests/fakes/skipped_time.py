"""An event loop whose clock a test moves on by hand: real sockets and threads keep their own time.

Where `tests.fakes.virtual_time` jumps by itself and so allows nothing but timers, here time passes as it does, and
`skip` adds to it: every timer of the loop that has become due then fires. `now` is that time, for code under test.
Time in which a busy machine let nothing of the test run does not count: no timer fires before its turn for it.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any

from tests.fakes.waiting import PATIENCE_S

WALL = 1_700_000_000.0
TURN_S = 0.002
"""The most that passes while the loop's callbacks run once, and beyond what a wait was to take."""
QUIET_TURNS = 30


class _Selector(selectors.DefaultSelector):
    """Tells how long a wait was to take."""

    asked_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.asked_s = PATIENCE_S if timeout is None else max(0.0, timeout)
        return super().select(timeout)


class SkippedTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._waits = _Selector()
        self._now = self._read_at = time.monotonic()
        self.woken = 0
        """How many callbacks were asked for, from the loop, its sockets and other threads."""
        self.in_threads = 0
        """How many calls are with threads now."""
        super().__init__(self._waits)

    def time(self) -> float:
        real = time.monotonic()
        self._now += min(real - self._read_at, self._waits.asked_s + TURN_S)
        self._read_at, self._waits.asked_s = real, 0.0
        return self._now

    def skip(self, seconds: float) -> None:
        self._now += seconds

    def _call_soon(self, *args: Any) -> Any:
        self.woken += 1
        return super()._call_soon(*args)  # type: ignore[misc]

    def run_in_executor(self, *args: Any) -> Any:  # type: ignore[override]
        self.in_threads += 1
        future = super().run_in_executor(*args)
        future.add_done_callback(self._came_back)
        return future

    def _came_back(self, _: Any) -> None:
        self.in_threads -= 1


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
        loop.skip(seconds)


def with_skipped_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on such a loop."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=SkippedTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


async def quiet() -> None:
    """Give what must not happen the time to happen: go on when nothing has moved for a while.

    A while is counted in turns of the loop, each of which leaves the machine to others for a moment.
    """
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SkippedTimeLoop)
    end = time.monotonic() + PATIENCE_S
    still = 0
    while still < QUIET_TURNS and time.monotonic() < end:
        before = loop.woken
        await asyncio.sleep(0.001)
        # Our own sleep asks for one callback; more than that is somebody else at work.
        still = 0 if loop.in_threads or loop.woken - before > 1 else still + 1
    assert still == QUIET_TURNS, "it never comes to rest"
