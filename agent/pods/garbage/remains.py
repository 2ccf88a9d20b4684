"""What stays of a pod that has ended, and for how long. For one pod's worker.

In: that everything of it is down; that the disk is short; that somebody needs its name. Out: its cgroup given back at
once, its dead containers and logs when they have to go. Without need they stay as long as the pod's object, for people
who want to read their logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable

from agent.model.observed import ObservedPod
from agent.pods.machine import Machine
from agent.pods.perform import Performer
from agent.pods.pod_state import PodState


class Remains:
    def __init__(self, machine: Machine, state: PodState, performer: Performer) -> None:
        self._machine = machine
        self._state = state
        self._performer = performer
        self._cgroup_is_back = False
        self._asked: asyncio.Event | None = None
        """The disk is short: set once nothing of the pod takes any of it."""
        self._in_the_way = asyncio.Event()

    async def settle(self, observed: ObservedPod) -> None:
        """Everything is down, and the pod's object stays. Raises Retryable."""
        if not self._cgroup_is_back:
            await self._performer.remove_cgroup()
            self._cgroup_is_back = True
        if self._asked is not None:
            await self._performer.remove_dead(observed)
            self._asked.set()
            self._asked = None

    async def keep(self) -> None:
        """The pod's object is gone: return when its dead containers are old enough, or in somebody's way."""
        if self._asked is not None:
            self._asked.set()
            self._asked = None
        least = self._state.retention.min_age_s
        if least > 0:
            last = max(self._state.ended_at.values(), default=-math.inf)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, last + least - self._machine.monotonic())):
                    await self._in_the_way.wait()

    async def reclaim(self, ended: bool, wake: Callable[[], None]) -> None:
        """Give the disk back that an ended pod takes, and return then. What runs keeps what it has."""
        self.make_way()
        if ended:
            self._asked = done = self._asked or asyncio.Event()
            wake()
            await done.wait()

    def make_way(self) -> None:
        """Keep it no longer once it is gone."""
        self._in_the_way.set()
