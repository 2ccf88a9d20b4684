"""What stays of a pod that has ended, and for how long. For one pod's worker.

In: that everything of it is down; that the disk is short; that somebody needs its name. Out: its cgroup given back at
once, its dead containers and logs when they have to go. Without need they stay as long as the pod's object, for people
who want to read their logs, or as long as the pod's policy says, whatever becomes of the object.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from agent.model.observed import ObservedPod
from agent.pods.garbage.kept import FOR_DISK, IN_TIME
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

    async def settle(self, observed: ObservedPod) -> float | None:
        """Everything is down, and the pod's object stays: when to look again (monotonic). Raises Retryable."""
        if not self._cgroup_is_back:
            await self._performer.remove_cgroup()
            self._cgroup_is_back = True
        if self._asked is not None:
            await self._collect(observed, FOR_DISK)
            self._asked.set()
            self._asked = None
            return None
        left_s = await self.hold(observed)
        if left_s is not None and left_s <= 0:
            await self._collect(observed, IN_TIME)
            return None
        return None if left_s is None else self._machine.monotonic() + left_s

    async def hold(self, observed: ObservedPod) -> float | None:
        """Everything is down: put into the record how long it stays, in seconds from now; None: as long as its object.

        Raises Retryable.
        """
        kept, pod = self._machine.kept, self._state.pod
        keep_for = self._machine.policing.of(pod).keep_for
        if keep_for is None or not observed.containers:
            await kept.forget(pod)
            return None
        return await kept.keep(pod, max(keep_for, self._state.retention.min_age_s), self._ended_ago_s())

    async def leave(self, observed: ObservedPod) -> None:
        """The pod's object is gone: hand on what stays, or take it away once it is old enough or in somebody's way.

        Raises Retryable.
        """
        kept, uid = self._machine.kept, self._state.pod.uid
        if self._asked is not None:
            self._asked.set()
            self._asked = None
        elif uid in kept and observed.containers:
            await self._performer.remove_cgroup()
            await kept.leave(uid)
            return
        least = self._state.retention.min_age_s
        if least > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, least - self._ended_ago_s())):
                    await self._in_the_way.wait()
        await self._performer.remove_traces(observed)
        await self._performer.remove_cgroup()
        await kept.forget(self._state.pod)

    async def _collect(self, observed: ObservedPod, why: str) -> None:
        await self._performer.remove_traces(observed)
        await self._machine.kept.forget(self._state.pod, why)

    def _ended_ago_s(self) -> float:
        return self._machine.monotonic() - max(self._state.ended_at.values(), default=self._machine.monotonic())

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
