"""How long pods take to start, as a kubelet measures it: from creation and from first sight, with and without pulls.

In: a pod's first sight, pulls of its images, its statuses. Out: three histograms. Only pods that this agent saw come
are measured: one that ran before a restart of the agent says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from agent import own_metrics
from agent.model.pod import Pod
from agent.model.status import Phase, PodStatus, unix_seconds
from agent.pods.desired import DesiredChange


class _Start(msgspec.Struct):
    seen_at: float
    """Monotonic, as the rest."""
    pull_began: float | None = None
    pull_ended: float | None = None
    """Of all pulls together: they may overlap."""


class StartTimes:
    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._starts: dict[str, _Start] = {}

    def desired(self, change: DesiredChange) -> None:
        """A pod has come, changed or gone."""
        if change.record is None:
            if change.was is not None:
                self.forget(change.was.uid)
        elif not change.recalled and change.was is None and change.record.pod.status.phase in ("", Phase.PENDING):
            self.seen(change.record.uid)

    def seen(self, uid: str) -> None:
        """A new pod has come."""
        self._starts.setdefault(uid, _Start(self._monotonic()))

    def forget(self, uid: str) -> None:
        self._starts.pop(uid, None)

    def pulled(self, uid: str, took_s: float) -> None:
        """A pull of an image for it ended now."""
        if (start := self._starts.get(uid)) is not None:
            now = self._monotonic()
            start.pull_began = now - took_s if start.pull_began is None else min(start.pull_began, now - took_s)
            start.pull_ended = now

    def told(self, pod: Pod, status: PodStatus) -> None:
        """Its newest status: measured once, when all its containers run."""
        if status.phase.is_terminal:
            self.forget(pod.uid)
            return
        states = [one.state.running for one in status.containerStatuses]
        if pod.uid not in self._starts or not states or not all(states):
            return
        start = self._starts.pop(pod.uid)
        own_metrics.POD_START.observe(self._monotonic() - start.seen_at)
        if pod.metadata.creationTimestamp is None:
            return
        # The creation's clock is the API server's: where it is ahead of ours there is nothing to tell.
        total = max(0.0, self._wall() - unix_seconds(pod.metadata.creationTimestamp))
        apart = _init_s(status)
        if start.pull_began is not None and start.pull_ended is not None:
            apart += start.pull_ended - start.pull_began
        own_metrics.POD_START_TOTAL.observe(total)
        own_metrics.POD_START_SLI.observe(max(0.0, total - apart))


def _init_s(status: PodStatus) -> float:
    """What init containers took that had to end first."""
    ended = (one.state.terminated for one in status.initContainerStatuses)
    return sum(
        max(0.0, unix_seconds(end.finishedAt) - unix_seconds(end.startedAt))
        for end in ended
        if end is not None and end.startedAt and end.finishedAt
    )


START_TIMES = StartTimes()
"""The agent's own: pods are told to it in several places."""
