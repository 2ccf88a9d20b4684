"""Probe running containers: one task a probe, a wake of the pod whenever what they mean changes.

In: containers as they start and end. Out: `Health` by container ID, and events. A probe waits for its initial delay
and for the container's startup, then goes by its period; it never acts on a container, the pod's worker does.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import msgspec

from agent import own_metrics
from agent.model.container import Container, Probe
from agent.model.pod import Pod
from agent.pods.knowledge import Health
from agent.pods.ports import Events, Wake
from agent.pods.probes.tally import Outcome, ProbeKind, Result, Tally, count, event, health, is_over, probes
from agent.pods.probes.target import Target

_MEASURED: Final = {Result.FAILURE: "failed", Result.ERROR: "unknown"}
"""As metrics spell them; the others are successful."""
_TRIES: Final = 3
"""A probe that can't be made is tried this often before it is reported."""


class Attempt(Protocol):
    async def attempt(self, target: Target, probe: Probe) -> Outcome:
        """Make one probe, within its timeout."""


class _Watched(msgspec.Struct):
    target: Target
    tallies: dict[ProbeKind, Tally]
    started: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    tasks: dict[ProbeKind, asyncio.Task[None]] = msgspec.field(default_factory=dict)

    def health(self) -> Health:
        return health(self.target.pod, self.target.container, self.tallies)


class Prober:
    """`tasks` owns the probes: it must be open as long as this is used, and a bug in a probe ends it."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        attempts: Attempt,
        events: Events,
        wake: Wake,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        part: Callable[[], float] = random.random,
    ) -> None:
        self._tasks = tasks
        self._attempts = attempts
        self._events = events
        self._wake = wake
        self._monotonic = monotonic
        self._sleep = sleep
        self._part = part
        self._watched: dict[str, _Watched] = {}

    def start(
        self,
        pod: Pod,
        container: Container,
        container_id: str,
        pod_ip: str,
        *,
        running_for_s: float = 0.0,
        adopted: Health | None = None,
    ) -> None:
        """The container runs, and has for `running_for_s` seconds: probe it. No effect for one that is probed.

        `adopted` is the last known health of a container that an earlier agent started: it holds until the probes
        say otherwise, and the first ones are spread over their period.
        """
        if container_id in self._watched:
            return
        wanted = probes(container)
        tallies = {kind: Tally() for kind in wanted}
        if adopted is not None:
            if ProbeKind.STARTUP in wanted and adopted.started:
                tallies[ProbeKind.STARTUP] = Tally(verdict=True)
            if ProbeKind.READINESS in wanted and adopted.ready:
                tallies[ProbeKind.READINESS] = Tally(verdict=True)
        watched = _Watched(Target(pod, container, container_id, pod_ip), tallies)
        if watched.health().started:
            watched.started.set()
        self._watched[container_id] = watched
        for kind, probe in wanted.items():
            if is_over(kind, tallies[kind]):
                continue
            delay = max(0.0, probe.initialDelaySeconds - running_for_s)
            if adopted is not None:
                delay += self._part() * probe.periodSeconds
            watched.tasks[kind] = self._tasks.create_task(
                self._probe(watched, kind, probe, delay), name=f"{kind} probe {pod.full_name}/{container.name}"
            )

    def stop(self, container_id: str) -> None:
        """The container has ended or is to be forgotten. No error for one that is not probed."""
        watched = self._watched.pop(container_id, None)
        if watched is not None:
            for task in watched.tasks.values():
                task.cancel()
            if watched.tasks:
                _forget(watched.target)

    def quiet(self, pod_uid: str) -> None:
        """The pod is ending: only its readiness is still of interest."""
        for watched in self._of(pod_uid).values():
            for kind, task in watched.tasks.items():
                if kind is not ProbeKind.READINESS:
                    task.cancel()

    def forget(self, pod_uid: str) -> None:
        """The pod is gone."""
        for container_id in self._of(pod_uid):
            self.stop(container_id)

    def close(self) -> None:
        """Stop everything, so that the task group can end."""
        for container_id in tuple(self._watched):
            self.stop(container_id)

    def health(self, pod_uid: str) -> Mapping[str, Health]:
        """By container ID, for every container that `start` was called for; without probes it is healthy."""
        return {container_id: watched.health() for container_id, watched in self._of(pod_uid).items()}

    def _of(self, pod_uid: str) -> dict[str, _Watched]:
        return {key: watched for key, watched in self._watched.items() if watched.target.pod.uid == pod_uid}

    async def _probe(self, watched: _Watched, kind: ProbeKind, probe: Probe, delay: float) -> None:
        if delay > 0:
            await self._sleep(delay)
        if kind is not ProbeKind.STARTUP:
            await watched.started.wait()
        due = self._monotonic()
        while True:
            began = self._monotonic()
            outcome = await self._outcome(watched, probe)
            _measure(watched.target, kind, outcome.result, self._monotonic() - began)
            self._report(watched, kind, outcome)
            if outcome.result is not Result.ERROR:
                self._count(watched, kind, probe, outcome.result is not Result.FAILURE)
            if is_over(kind, watched.tallies[kind]):
                return
            # A probe that took longer than its period is due at once, but those that it missed are not made up for.
            due = max(due + probe.periodSeconds, self._monotonic())
            await self._sleep(due - self._monotonic())

    async def _outcome(self, watched: _Watched, probe: Probe) -> Outcome:
        outcome = Outcome(Result.ERROR)
        for _ in range(_TRIES):
            outcome = await self._attempts.attempt(watched.target, probe)
            if outcome.result is not Result.ERROR:
                break
        return outcome

    def _report(self, watched: _Watched, kind: ProbeKind, outcome: Outcome) -> None:
        if (worth := event(kind, outcome)) is not None:
            self._events.record(watched.target.reference, "Warning", *worth)

    def _count(self, watched: _Watched, kind: ProbeKind, probe: Probe, success: bool) -> None:
        before = watched.health()
        watched.tallies[kind] = count(watched.tallies[kind], probe, success)
        after = watched.health()
        if after.started:
            watched.started.set()
        if after != before:
            self._wake(watched.target.pod.uid)


def _measure(target: Target, kind: ProbeKind, result: Result, seconds: float) -> None:
    meta, container = target.pod.metadata, target.container.name
    said = _MEASURED.get(result, "successful")
    own_metrics.PROBE_RESULTS.inc(kind, said, container, meta.name, meta.namespace, meta.uid)
    own_metrics.PROBE_DURATION.observe(seconds, kind, container, meta.name, meta.namespace)


def _forget(target: Target) -> None:
    """Series of containers that are gone would pile up."""
    meta, container = target.pod.metadata, target.container.name
    own_metrics.PROBE_RESULTS.forget(lambda of: of["pod_uid"] == meta.uid and of["container"] == container)
    own_metrics.PROBE_DURATION.forget(
        lambda of: (of["namespace"], of["pod"], of["container"]) == (meta.namespace, meta.name, container)
    )
