"""The node goes down: its pods are ended first, those that matter least before those that matter most.

In: word of it, from logind or by hand, and the time that each priority has. Out: pods ended in turn, the Node that says
so, no new pods meanwhile; and everything as before when the shutdown is called off. A pod that somebody else can make
again is over for good; one that only this machine has, or nobody hears of now, runs again after it.
Source: the kubelet's graceful node shutdown, whose reasons and messages these are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec
from loguru import logger

from agent.clock import Clock
from agent.config import Settings
from agent.model.pod import Pod

SYSTEM_CRITICAL_PRIORITY = 2_000_000_000
MESSAGE = "node is shutting down"
LOOK_S = 0.1
TOLD_WITHIN_S = 3.0
"""For the API server to take the last statuses."""


class Period(msgspec.Struct, frozen=True):
    """Pods of this priority, up to the next one's, have so many seconds."""

    priority: int
    grace_s: int


class Group(msgspec.Struct, frozen=True):
    period: Period
    pods: tuple[Pod, ...]


class PodsToEnd(Protocol):
    """The pods of a provider that lets the agent end them."""

    def active(self) -> Sequence[Pod]:
        """Those that have not ended."""

    def end(self, uid: str, grace_s: int, *, final: bool) -> None:
        """Begin to end it: for good, or until `open`. A second call can only shorten the time that is left."""

    def has_ended(self, uid: str) -> bool:
        """Nothing of it runs, and its volumes are gone."""

    def close(self) -> None:
        """Take no more pods. Those of the API server are rejected for good, those of this machine wait for `open`."""

    def open(self) -> None:
        """Take pods again, and run those that were not ended for good."""


def periods(settings: Settings) -> tuple[Period, ...]:
    """Lowest priority first; empty: shutdowns are not noticed."""
    if settings.shutdown_grace_period_by_pod_priority:
        return tuple(Period(*one) for one in settings.shutdown_grace_period_by_pod_priority)
    return two_periods(settings.shutdown_grace_period, settings.shutdown_grace_period_critical_pods)


def two_periods(whole_s: float, critical_s: float) -> tuple[Period, ...]:
    """Ordinary pods have what critical ones leave of the whole time."""
    if not whole_s:
        return ()
    ordinary_s = int(whole_s - critical_s)
    return Period(0, ordinary_s), Period(SYSTEM_CRITICAL_PRIORITY, int(whole_s - ordinary_s))


def groups(pods: Iterable[Pod], by: Sequence[Period]) -> tuple[Group, ...]:
    """In the order in which they end; a pod below the lowest priority goes with that one. Empty groups are left out."""
    members: list[list[Pod]] = [[] for _ in by]
    bounds = [period.priority for period in by]
    for pod in pods:
        members[max(bisect_right(bounds, pod.spec.priority or 0) - 1, 0)].append(pod)
    return tuple(Group(period, tuple(some)) for period, some in zip(by, members, strict=True) if some)


class Shutdown:
    """One for a node. `begin` may be called again while it is under way: of each pod the shorter time holds."""

    def __init__(
        self,
        pods: PodsToEnd | None,
        clock: Clock,
        *,
        reachable: Callable[[], bool],
        changed: Callable[[], None],
        untold: Callable[[], int],
    ) -> None:
        """`reachable`: the API server answers. `changed`: the Node is to be told anew. `untold`: statuses that wait.

        No `pods`: the provider does not let the agent end them.
        """
        self._pods = pods
        self._clock = clock
        self._reachable = reachable
        self._changed = changed
        self._untold = untold
        self.message = ""
        """Why the Node is not ready; empty while no shutdown is under way."""

    @property
    def can_end_pods(self) -> bool:
        return self._pods is not None

    async def begin(self, by: Sequence[Period], tell: Callable[[str], None]) -> bool:
        """End all pods; True when every one has ended in its time. `tell` hears of the progress, line by line."""
        self.message = MESSAGE
        self._changed()
        if self._pods is None:
            tell("the provider does not let the agent end its pods: the Node says that it is shutting down, no more")
            return False
        self._pods.close()
        in_time = True
        for group in groups(self._pods.active(), by):
            in_time = await self._end(group, tell) and in_time
            if not self.message:
                tell("called off")
                return False
        await self._settle()
        tell("all pods have ended" if in_time else "not all pods have ended in their time")
        return in_time

    def call_off(self) -> None:
        """The node stays up."""
        if not self.message:
            return
        self.message = ""
        if self._pods is not None:
            self._pods.open()
        self._changed()

    async def _end(self, group: Group, tell: Callable[[str], None]) -> bool:
        assert self._pods is not None
        whole_s, names = group.period.grace_s, {pod.uid: pod.full_name for pod in group.pods}
        tell(f"ending {_pods(len(names))} of priority {group.period.priority} and above, within {whole_s} s")
        for pod in group.pods:
            final = not pod.is_static and self._reachable()
            self._pods.end(pod.uid, min(whole_s, pod.spec.terminationGracePeriodSeconds), final=final)
        due = self._clock.monotonic() + whole_s
        while names and self.message:
            for uid in [uid for uid in names if self._pods.has_ended(uid)]:
                tell(f"{names.pop(uid)} has ended")
            if names and self._clock.monotonic() >= due:
                tell(f"{_pods(len(names))} did not end in time: {', '.join(sorted(names.values()))}")
                break
            if names:
                await self._clock.sleep(LOOK_S)
        return not names

    async def _settle(self) -> None:
        """Let the API server hear of it, where it listens."""
        due = self._clock.monotonic() + TOLD_WITHIN_S
        while self._reachable() and self._untold() and self._clock.monotonic() < due:
            await self._clock.sleep(LOOK_S)


def log_progress(line: str) -> None:
    logger.info("shutdown: {}", line)


def _pods(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"
