"""One pod's worker: observe, plan, report, perform, wait; until the pod is gone.

In: the desired pod (changes of it, its end) and wakes from runtime events, probes, referenced objects and the relist.
Out: effects by the performer, and PodUpdates. It always reads the runtime afresh before it acts: a wake is only a hint.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from loguru import logger
from msgspec.structs import replace

from agent.errors import Conflict, EdgeletError, NotFound, Permanent, Retryable
from agent.model.objects import ObjectReference
from agent.model.observed import ObservedPod
from agent.model.record import PodRecord
from agent.model.status import Phase, PodStatus, timestamp, unix_seconds
from agent.pods.admission.gate import Verdict
from agent.pods.garbage.remains import Remains
from agent.pods.interrupt import Interrupt
from agent.pods.knowledge import Stop, StopCause
from agent.pods.machine import Machine
from agent.pods.on_disk import on_disk
from agent.pods.perform import Performer
from agent.pods.plan import plan
from agent.pods.pod_state import PodState
from agent.pods.probing import probe_running
from agent.pods.refusing import refuse_unsupported, say_ignored
from agent.pods.reporting import Reporter
from agent.pods.resizing import Resizer
from agent.pods.scripts.allowed import SCRIPTS_DISABLED
from agent.pods.scripts.host_program import host_record
from agent.pods.scripts.kind import KIND_IS_SETTLED
from agent.providers.contract import PodUpdate

RUNTIME_AWAY_S = 1.0
ENDED = (Phase.SUCCEEDED, Phase.FAILED)
PREEMPTED_FOR = "Pod was preempted by Kubelet to accommodate a critical pod."
DEADLINE_EXCEEDED = "Pod was active on the node longer than the specified deadline"


class PodWorker:
    """`run` is the worker's life; the other methods are calls from outside and return at once."""

    def __init__(
        self,
        record: PodRecord,
        machine: Machine,
        root: Path,
        updated: Callable[[PodUpdate], None],
        last: PodStatus | None,
    ) -> None:
        """`last` is the status that the record holds of the pod from before a restart. Raises Retryable."""
        self._machine = machine
        self._state = PodState(host_record(record), seen_at=timestamp(machine.wall()))
        with on_disk("cannot look for the pod's volumes"):
            self._state.volumes_mounted = machine.volumes.is_on_disk(record.uid)
        self._interrupt = Interrupt()
        self._state.retention = machine.retention
        self._resizer = Resizer(machine, self._state)
        self._performer = Performer(machine, self._state, root, self._interrupt)
        self._reporter = Reporter(machine, self._state, updated, last)
        self._remains = Remains(machine, self._state, self._performer)
        self._wake = asyncio.Event()
        self._observed = ObservedPod(record.uid, record.pod.metadata.namespace, record.pod.metadata.name)
        self._refresh = False
        self._recalled = False
        self._admitted = False
        self._is_down = False
        self.gone = asyncio.Event()
        """Set when `run` has ended: another pod may take the name."""
        self._log = logger.bind(pod=record.pod.full_name)
        self._resizer.recall(last)
        refuse_unsupported(machine, self._state, has_run=self._has_run)

    @property
    def record(self) -> PodRecord:
        return self._state.record

    @property
    def status(self) -> PodStatus | None:
        """The status last reported."""
        return self._reporter.last

    @property
    def observed(self) -> ObservedPod:
        """The pod as the runtime was last read."""
        return self._observed

    @property
    def attempts(self) -> Mapping[str, int]:
        """The highest one that was made of each container."""
        return dict(self._state.attempts)

    def recall(self, attempts: Mapping[str, int]) -> None:
        """A pod of this very UID ran here before: restart counts go on."""
        for name, attempt in attempts.items():
            self._state.note_attempt(name, attempt)

    @property
    def volumes(self) -> Mapping[str, Path]:
        """The folders of its volumes, as far as this agent has set them up."""
        return self._state.volume_paths or {}

    @property
    def is_ending(self) -> bool:
        """It was told to take everything of the pod away."""
        return self._state.stop is not None and self._state.stop.cause is StopCause.DELETED

    @property
    def is_active(self) -> bool:
        """It was taken, has not ended, and was not told to for the node's sake."""
        stop = self._state.stop
        return self._admitted and not self._reporter.has_ended and (stop is None or stop.cause is StopCause.DELETED)

    @property
    def is_down(self) -> bool:
        """Nothing of it runs, and its volumes are gone."""
        return self.gone.is_set() or (self._reporter.has_ended and not self._state.volumes_mounted)

    @property
    def has_stopped(self) -> bool:
        """It was told to, and nothing of it runs or is mounted any more."""
        return self.gone.is_set() or (self._state.stop is not None and self._is_down)

    @property
    def _grace_s(self) -> int:
        return self.record.pod.spec.terminationGracePeriodSeconds

    def wake(self) -> None:
        """Look at the pod now."""
        self._wake.set()
        self._reporter.tell_health()

    def objects_changed(self) -> None:
        """Something that the pod refers to changed: write it into its volumes, and try again what failed for it."""
        self._refresh = True
        self._state.volume_failure = None
        if self._state.pod_failure is not None:
            self._state.pod_failure = replace(self._state.pod_failure, retry_at=-math.inf)
        self.devices_changed()

    def driver_came(self) -> None:
        """A driver of volumes is there: what failed without it may work now."""
        if self._state.volume_failure is not None:
            self._state.volume_failure = None
            self._wake.set()

    def link_returned(self) -> None:
        """A network is back: pull now what waits for a registry that was away."""
        if self._state.retry_pulls():
            self._wake.set()

    def devices_changed(self) -> None:
        """What a container is made with may be there now, or is in another state."""
        for name, failure in self._state.failures.items():
            if failure.reason == "CreateContainerConfigError":
                self._state.failures[name] = replace(failure, retry_at=-math.inf)
        self._wake.set()

    def update(self, record: PodRecord) -> None:
        """The desired pod changed."""
        if record.pod.metadata.generation != self._state.pod.metadata.generation:
            say_ignored(self._machine, self._state, record)
        if record.kind_change_refused and not self._state.record.kind_change_refused:
            self._event("Warning", SCRIPTS_DISABLED, KIND_IS_SETTLED)
        before, now = self._state.pod, record.pod
        if self._resizer.want(host_record(record)):
            self._wake.set()
        if (before.metadata.labels, before.metadata.annotations) != (now.metadata.labels, now.metadata.annotations):
            self._refresh = True
            self._wake.set()
        # Mostly it is our own status that comes back, and of a status only readiness gates are of interest.
        elif before.spec != now.spec or now.spec.readinessGates:
            self._wake.set()

    def stop(self, cause: StopCause, grace_s: int, reason: str = "", message: str = "", disruption: str = "") -> None:
        """End the pod. A second call can only shorten the time that is left, and a deletion outlives all else."""
        deadline = self._machine.monotonic() + grace_s
        before = self._state.stop
        if before is not None:
            deadline = min(deadline, before.deadline)
            if before.cause is StopCause.DELETED or before.cause is cause:
                cause, reason, message = before.cause, before.reason, before.message
            disruption = disruption or before.disruption
        self._state.stop = Stop(cause, deadline, reason, message, disruption)
        self._is_down = False
        if before is None or deadline < before.deadline - 1:
            self._interrupt.interrupt()
        self._machine.prober.quiet(self.record.uid)
        self._wake.set()

    def renew(self, container_id: str, why: str) -> None:
        """Start this running container anew, on an empty file system."""
        if container_id in {running.id for running in self._observed.running}:
            self._state.renewed[container_id] = why
            self._wake.set()

    @property
    def is_renewing(self) -> bool:
        """A container that was to be renewed is there still."""
        return bool(self._state.renewed)

    async def reclaim(self) -> None:
        """The disk is short: give back what an ended pod takes of it, and return then."""
        await self._remains.reclaim(self._reporter.has_ended and not self.is_ending, self._wake.set)

    def make_way(self) -> None:
        """Somebody needs the pod's name: if it is gone, keep nothing of it any longer."""
        self._remains.make_way()

    def pause(self, grace_s: int) -> None:
        """End it for as long as the node goes down; a pod that ends for another reason only has less time."""
        before = self._state.stop
        self.stop(StopCause.PAUSED if before is None else before.cause, grace_s)

    def resume(self) -> None:
        """The node stays up."""
        if self._state.stop is not None and self._state.stop.cause is StopCause.PAUSED:
            self._state.stop = None
            self._admitted = False  # one that had just come may not have been judged yet
            self._wake.set()

    async def run(self) -> None:
        """Returns when the pod is gone, with all its traces on the machine."""
        trouble = ""
        while True:
            self._wake.clear()
            try:
                if await self._step():
                    self.gone.set()
                    return
                trouble = ""
            except Retryable as error:
                # Once: every pod meets the same runtime, again and again for as long as it is away.
                if str(error) != trouble:
                    self._log.warning("{}; looking again", error)
                trouble = str(error)
                await self._pause(RUNTIME_AWAY_S)
            except (NotFound, Conflict, Permanent) as error:
                # A race (it was removed between look and act) or a refusal to stop or remove: look again, not at once.
                self._log.warning("{}", error)
                await self._pause(self._state.next_retry("act"))

    async def _step(self) -> bool:
        """One look and what follows from it; whether the pod is gone."""
        machine, state = self._machine, self._state
        machine.policing.of(self.record.pod)  # what is wrong with its annotations is said at once
        if not self._admitted and not await self._admit():
            return False
        self._observed = observed = await machine.observer.observe(
            self.record.uid, self.record.pod.metadata.namespace, self.record.pod.metadata.name
        )
        if not self._recalled:
            logged = await asyncio.to_thread(machine.log_files.attempts, self.record.pod)
            state.recall_attempts(self.status, logged, observed)
            self._recalled = True
        now = machine.monotonic()
        self._resizer.note(observed)
        if state.stop is None:
            await self._resizer.perform(observed)
        state.note_ends(observed, now, machine.age)
        if state.refused_reason == SCRIPTS_DISABLED and observed.alive and state.stop is None:
            # It ran before the machine's owner took the permission back.
            self.stop(StopCause.FAILED, self._grace_s, SCRIPTS_DISABLED, state.refused)
        probe_running(machine, state, observed, self.status)
        deadline = self._deadline(now)
        health, rush = machine.prober.health(self.record.uid), machine.starts.rush
        knows = state.knowledge(health, ended=self._reporter.has_ended, rush=rush)
        decided = plan(self.record.pod, observed, knows, now)
        self._is_down = decided.done and knows.stop is not None
        gone = decided.done and state.stop is not None and state.stop.cause is StopCause.DELETED
        if gone:
            await self._remains.hold(observed)  # in the record before the object goes, and with it who knows of it
        self._reporter.report(observed, knows, decided, gone=gone)
        if gone:
            await self._leave(observed)
            return True
        if decided.actions:
            with self._reporter.performing(observed):
                await self._performer.perform(decided.actions, observed)
            state.retries.pop("act", None)
            return False
        keep_due = None
        if decided.done and not (state.stop is not None and state.stop.cause is StopCause.PAUSED):
            keep_due = await self._remains.settle(observed)
        if state.refresh_at is not None and now >= state.refresh_at:
            self._refresh = True
        if self._refresh and state.volume_paths is not None and state.stop is None:
            self._refresh = False
            await self._performer.refresh_volumes()
        await self._wait(decided.wake_at, state.refresh_at, deadline, self._resizer.retry_at, keep_due)
        return False

    async def _leave(self, observed: ObservedPod) -> None:
        """The API object may go; here only cleaning up is left, and it is tried until it is done."""
        machine = self._machine
        machine.objects.release(self.record.uid)
        machine.prober.forget(self.record.uid)
        while True:
            try:
                await self._remains.leave(observed)
                await machine.tokens.forget(self.record.uid)
                return
            except (Retryable, Permanent, NotFound, Conflict) as error:
                self._log.warning("cannot clean up: {}", error)
                await asyncio.sleep(self._state.next_retry("remove"))
            try:
                meta = self.record.pod.metadata
                observed = await machine.observer.observe(meta.uid, meta.namespace, meta.name)
            except EdgeletError as error:
                self._log.warning("cannot read the runtime: {}", error)

    def _deadline(self, now: float) -> float | None:
        """activeDeadlineSeconds: end the pod when it has passed; its moment in monotonic seconds until then."""
        seconds, state = self.record.pod.spec.activeDeadlineSeconds, self._state
        started = self.status.startTime if self.status else self.record.pod.status.startTime
        if seconds is None or state.stop is not None or started is None or self._reporter.has_ended:
            return None
        due = now + seconds - self._machine.since(unix_seconds(started))
        if due > now:
            return due
        self.stop(StopCause.FAILED, self._grace_s, "DeadlineExceeded", DEADLINE_EXCEEDED)
        self._event("Normal", "DeadlineExceeded", DEADLINE_EXCEEDED)
        return None

    async def _admit(self) -> bool:
        """Ask once whether the node takes the pod; False: it was told to end meanwhile. Raises Retryable."""
        state = self._state
        if not (state.refused or state.stop or self._reporter.has_ended or self.record.pod.status.phase in ENDED):
            runs = self._has_run or state.volumes_mounted
            async with self._interrupt.scope() as scope:
                verdict = await self._machine.gate.admit(self.record.pod, runs=runs)
            if scope.interrupted:
                return False
            if verdict is not None:
                self.expel(verdict)
        self._admitted = True
        return True

    @property
    def _has_run(self) -> bool:
        said = self.record.pod.status.phase
        return said == Phase.RUNNING or (self.status is not None and self.status.phase is Phase.RUNNING)

    def expel(self, verdict: Verdict) -> None:
        """For good: a controller makes another pod, which another node may take."""
        if verdict.evicted:
            self.stop(StopCause.FAILED, verdict.grace_s, verdict.reason, verdict.message, verdict.disruption)
            return
        self._event("Warning", verdict.reason, verdict.message)
        if verdict.preempted:
            self.stop(StopCause.FAILED, self._grace_s, verdict.reason, verdict.message, PREEMPTED_FOR)
        else:
            self._state.rejected = True
            self.stop(StopCause.FAILED, 0, verdict.reason, f"Pod was rejected: {verdict.message}")

    def _event(self, kind: str, reason: str, message: str) -> None:
        self._machine.events.record(ObjectReference.of(self.record.pod), kind, reason, message)

    async def _wait(self, *moments: float | None) -> None:
        due = min((m for m in moments if m is not None), default=None)
        await self._pause(None if due is None else max(0.0, due - self._machine.monotonic()))

    async def _pause(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
