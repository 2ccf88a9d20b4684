"""An event loop whose clock jumps: a test that waits for minutes takes milliseconds.

When nothing is ready to run, time goes on to the next timer. Only for code that waits for nothing but timers and its
own events: a thread or a socket would find that hours have passed.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        if not ready and scheduled:
            self._now = max(self._now, scheduled[0].when())
        super()._run_once()  # type: ignore[misc]


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on such a loop. `elapsed` tells the seconds that passed in it."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def elapsed() -> float:
    return asyncio.get_running_loop().time()


async def beside(service: Awaitable[None], work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do the work while the service runs, then end the service."""
    running = asyncio.ensure_future(service)
    await asyncio.sleep(0)
    try:
        await work()
    finally:
        if running.done():
            running.result()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
