"""Notice a registry that takes connections and never answers, or whose packets are lost: containerd may wait for ever.

In: pulls as they run, and whether anything came in from their registry. Out: a pull of which nothing came is cancelled,
which the runtime does too, and the registry counts as away for a while, so that not every pod waits for itself. A pull
of which anything came is never cut, however slow it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from agent.errors import Permanent, Retryable
from agent.pods.pulls import Place

SILENT_S = 15.0
"""Without a byte of a manifest: long enough for a name, a connection, TLS and a token over a satellite."""
GIVEN_UP_S = 120.0
"""Where there is no other image to start from: a mirror that is gone costs containerd 30 s before it asks the next."""
REMEMBERED_S = 120.0

T = TypeVar("T")


class ArrivalSource(Protocol):
    async def within(self, seconds: float, registry: str) -> bool:
        """Raises Retryable; Permanent where the runtime can't tell."""


class Silence:
    def __init__(self, arrivals: ArrivalSource, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._arrivals = arrivals
        self._monotonic = monotonic
        self._silent_until: dict[str, float] = {}

    def check(self, registry: str) -> None:
        """Raises Permanent while the registry is known not to answer."""
        if (until := self._silent_until.get(registry)) is None:
            return
        if self._monotonic() < until:
            raise _unavailable(registry, SILENT_S)
        del self._silent_until[registry]

    def forget(self) -> None:
        """Whoever was silent may answer now."""
        self._silent_until.clear()

    async def watch(
        self,
        registry: str,
        pull: Coroutine[Any, Any, T],
        place: Place,
        may_do_without: Callable[[], Awaitable[bool]],
    ) -> T:
        """What `pull` gives, which ends early where nothing comes and the pod may do without, or after `GIVEN_UP_S`.

        `place` is left as soon as the registry is silent. Raises Permanent, and what `pull` raises.
        """
        began = self._monotonic()
        task = asyncio.ensure_future(pull)
        try:
            while not (await asyncio.wait({task}, timeout=SILENT_S))[0]:
                waited = self._monotonic() - began
                try:
                    if await self._arrivals.within(waited, registry):
                        break
                except Retryable:
                    continue
                except Permanent:
                    break  # nobody can tell: the runtime's own limits hold
                self._silent_until[registry] = self._monotonic() + REMEMBERED_S
                place.leave()
                if waited >= GIVEN_UP_S or await may_do_without():
                    raise _unavailable(registry, waited)
            got = await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._silent_until.pop(registry, None)
        return got


def _unavailable(registry: str, seconds: float) -> Permanent:
    return Permanent("", f"RegistryUnavailable: {registry} did not answer within {seconds:.0f}s")
