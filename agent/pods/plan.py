"""Decide what one pod needs next.

In: the pod as the record has it, the pod as the runtime has it, what the worker knows beside (`Knowledge`), and the
time. Out: the actions to perform now and the moment to look again. No I/O: the worker performs what this returns, so
every rule here is a plain unit test. Ending a pod is in `plan_stop`.
"""

from __future__ import annotations

import math

import msgspec

from agent.model.action import (
    Action,
    ContainerStart,
    CreateSandbox,
    KillContainer,
    RemoveContainer,
    RemoveSandbox,
    SetUpVolumes,
    StartContainers,
    StopSandbox,
)
from agent.model.container import Container
from agent.model.observed import ContainerState, ObservedContainer, ObservedPod, ObservedSandbox
from agent.model.pod import Pod
from agent.pods.knowledge import NO_HEALTH, Knowledge, StopCause
from agent.pods.plan_restart import plan_restart
from agent.pods.plan_stop import plan_stop
from agent.pods.restart import causes_of_restart, is_renewed, restart_due, restarts_when_killed, runs_again
from agent.pods.status import is_finished
from agent.pods.translate.identity import spec_hash

AFTER_RUSH_S = 3.0
"""What a reboot left is looked at again after this long, while other pods still start."""


class Plan(msgspec.Struct, frozen=True):
    actions: tuple[Action, ...] = ()
    wake_at: float | None = None
    """Monotonic seconds; None: only an event can change the answer."""
    done: bool = False
    """Ending is complete: nothing runs, nothing is mounted, the network is down."""


def plan(pod: Pod, observed: ObservedPod, knows: Knowledge, now: float) -> Plan:
    """The next step of a pod on its way to what its spec says, or to its end."""
    if knows.stop is not None:
        mounted, again = knows.volumes_mounted, knows.stop.cause is StopCause.PAUSED
        deadline = knows.stop.deadline
        return Plan(*plan_stop(pod, observed, volumes_mounted=mounted, deadline=deadline, now=now, again=again))
    if knows.refused:
        return Plan()
    if knows.ended or is_finished(pod, observed, knows):
        # Sidecars may still run: they end like those of a deleted pod, and dead containers stay for their logs.
        deadline = now + pod.spec.terminationGracePeriodSeconds
        return Plan(*plan_stop(pod, observed, volumes_mounted=knows.volumes_mounted, deadline=deadline, now=now))
    return _plan_running(pod, observed, knows, now)


def _plan_running(pod: Pod, observed: ObservedPod, knows: Knowledge, now: float) -> Plan:
    if observed.abandoned:
        return Plan(tuple(RemoveContainer(c.id) for c in observed.abandoned))
    if causes := causes_of_restart(pod, observed):
        return Plan(plan_restart(pod, observed, causes))
    wakes = _Wakes()
    actions: list[Action] = []
    sandbox = observed.sandbox
    # What still runs in a sandbox that is dead or replaced ends as any container does, before its sandbox is stopped:
    # a new one of the same name must not run beside it.
    if strays := _strays(pod, observed):
        return Plan(strays)
    # Two sandboxes of one pod must never be up together: the older ones go first.
    stale = tuple(StopSandbox(s.id) for s in observed.sandboxes[1:] if s.ready)
    if stale:
        return Plan(stale)
    # The disk that they filled is needed before they are made again. Their end was told by the step before.
    if emptied := tuple(RemoveContainer(c.id) for c in observed.containers if is_renewed(c, knows)):
        return Plan(emptied)
    if not knows.volumes_ready and wakes.is_due(knows.volume_failure, now):
        actions.append(SetUpVolumes())
    if sandbox is None or not sandbox.ready:
        if wakes.is_due(knows.pod_failure, now):
            attempt = max(sandbox.attempt if sandbox else -1, knows.last_sandbox_attempt) + 1
            actions.append(CreateSandbox(attempt, replaces=sandbox.id if sandbox else None))
        return Plan(tuple(actions), wakes.next)
    actions += _kills(pod, observed, sandbox, knows)
    starts: list[Action] = []
    if knows.volumes_ready:
        due = (
            _ephemeral(pod, observed, sandbox, knows, now, wakes),
            _starts(pod, observed, sandbox, knows, now, wakes),
        )
        starts += [StartContainers(tuple(group)) for group in due if group]
    # What a reboot left costs the runtime as much as a start: it goes when nothing starts.
    actions += starts or _dead_weight(observed, knows, now, wakes)
    return Plan(tuple(actions), wakes.next)


def _ephemeral(
    pod: Pod, observed: ObservedPod, sandbox: ObservedSandbox, knows: Knowledge, now: float, wakes: _Wakes
) -> list[ContainerStart]:
    """Ephemeral containers that were never made: at once, also while init containers work, and each only once."""
    starts: list[ContainerStart] = []
    for container in pod.spec.ephemeralContainers:
        newest = observed.newest(container.name)
        made = newest is not None or knows.attempts.get(container.name, -1) >= 0
        never_ran = newest is not None and newest.state is ContainerState.CREATED
        current = _current(observed, sandbox, container.name)
        if (not made or never_ran) and (start := _start(container, observed, current, knows, now, wakes)):
            starts.append(start)
    return starts


def _starts(
    pod: Pod, observed: ObservedPod, sandbox: ObservedSandbox, knows: Knowledge, now: float, wakes: _Wakes
) -> list[ContainerStart]:
    """Init containers in order, sidecars when their turn has come, main containers when all of those are through."""
    starts: list[ContainerStart] = []
    begun = _begun(pod, observed, sandbox)
    for index, container in enumerate(pod.spec.initContainers):
        current = _current(observed, sandbox, container.name)
        if container.is_sidecar:
            if start := _start(container, observed, current, knows, now, wakes):
                starts.append(start)
            running = current is not None and current.state is ContainerState.RUNNING
            if index >= begun and not (running and current and knows.health.get(current.id, NO_HEALTH).started):
                return starts
            continue
        if index < begun or (current and current.state is ContainerState.EXITED and current.exit_code == 0):
            continue
        if start := _start(container, observed, current, knows, now, wakes):
            starts.append(start)
        return starts
    for container in pod.spec.containers:
        current = _current(observed, sandbox, container.name)
        # An end in an earlier sandbox stands too: a new sandbox does not run a finished container again.
        newest = current or observed.newest(container.name)
        ended = newest is not None and newest.state is ContainerState.EXITED
        if ended and newest is not None and not runs_again(pod, container, newest, knows.replaced):
            continue
        if start := _start(container, observed, current, knows, now, wakes):
            starts.append(start)
    return starts


def _start(
    container: Container,
    observed: ObservedPod,
    current: ObservedContainer | None,
    knows: Knowledge,
    now: float,
    wakes: _Wakes,
) -> ContainerStart | None:
    """The start that a container needs now which may run (again); None where it runs or must wait."""
    newest = current or observed.newest(container.name)
    if current is not None and current.state in (ContainerState.RUNNING, ContainerState.UNKNOWN):
        return None
    if not wakes.is_due(knows.failures.get(container.name), now):
        return None
    if current is not None and current.state is ContainerState.CREATED:
        return ContainerStart(container.name, current.attempt, resume_id=current.id)
    # Another image is another program, which has not crashed yet.
    same = newest is not None and newest.spec_hash == spec_hash(container)
    if newest is not None and newest.state is ContainerState.EXITED and same:
        backoff = knows.backoffs.get(container.name)
        due = restart_due(observed, newest, backoff, knows.ended_at, knows.replaced, now)
        if now < due:
            wakes.add(due)
            return None
    used = max(newest.attempt if newest else -1, knows.attempts.get(container.name, -1))
    return ContainerStart(container.name, used + 1)


def _begun(pod: Pod, observed: ObservedPod, sandbox: ObservedSandbox) -> int:
    """How far the pod has come in this sandbox: init containers before this index are through, sidecars among them
    hold nobody up any more. A trace of a later container proves it where an earlier one was removed.
    """
    if any(_current(observed, sandbox, c.name) for c in pod.spec.containers):
        return len(pod.spec.initContainers)
    traces = (i for i, c in enumerate(pod.spec.initContainers) if _current(observed, sandbox, c.name))
    return max(traces, default=0)


def _strays(pod: Pod, observed: ObservedPod) -> tuple[Action, ...]:
    sandbox = observed.sandbox
    home = sandbox.id if sandbox is not None and sandbox.ready else None
    grace = pod.spec.terminationGracePeriodSeconds
    return tuple(
        KillContainer(c.id, c.name, grace, f"Container {c.name} runs in a dead sandbox, stopping it")
        for c in observed.alive
        if c.sandbox_id != home
    )


def _kills(pod: Pod, observed: ObservedPod, sandbox: ObservedSandbox, knows: Knowledge) -> list[Action]:
    """Containers whose state the runtime has lost, whose image changed, or whose probe or postStart hook failed."""
    kills: list[Action] = []
    specs = {c.name: c for c in (*pod.spec.initContainers, *pod.spec.containers)}
    ends_by_itself = {c.name for c in pod.spec.initContainers if not c.is_sidecar}
    pod_grace = pod.spec.terminationGracePeriodSeconds
    for container in observed.alive:
        name, spec = container.name, specs.get(container.name)
        if container.sandbox_id != sandbox.id or spec is None:
            continue
        health = knows.health.get(container.id, NO_HEALTH)
        if container.state is ContainerState.UNKNOWN:
            message = f"Container {name} is in an unknown state, restarting it"
            again = name not in ends_by_itself or restarts_when_killed(pod, spec)
            kills.append(KillContainer(container.id, name, 0, message, replaced=again))
        elif name not in ends_by_itself and container.spec_hash != spec_hash(spec):
            message = f"Container {name} definition changed, will be restarted"
            kills.append(KillContainer(container.id, name, pod_grace, message, replaced=True))
        elif container.id in knows.outgrown:
            message = f"Container {name} resize requires restart"
            kills.append(KillContainer(container.id, name, pod_grace, message, replaced=True))
        elif container.id in knows.renewed:
            kills.append(
                KillContainer(container.id, name, pod_grace, f"Container {name} is restarted on disk", replaced=True)
            )
        elif health.failed:
            grace = pod_grace if health.grace_s is None else health.grace_s
            kills.append(KillContainer(container.id, name, grace, health.failed, replaced=health.restarts))
    return kills


def _dead_weight(observed: ObservedPod, knows: Knowledge, now: float, wakes: _Wakes) -> list[Action]:
    """What is left of dead sandboxes. Per container the newest stays, and as many before it as are kept (for the status
    and for `kubectl logs --previous`), with their sandboxes.
    """
    keep = math.inf if knows.retention.dead < 0 else knows.retention.dead
    seen: dict[str, int] = {}
    removals: list[Action] = []
    for container in observed.containers:
        newer = seen.get(container.name, 0)
        if newer and container.state is ContainerState.CREATED:
            # Made in a sandbox that died before it could start: it has neither an end nor a log.
            removals.append(RemoveContainer(container.id))
            continue
        seen[container.name] = newer + 1
        if newer > keep and container.state is ContainerState.EXITED:
            due = knows.ended_at.get(container.id, now) + knows.retention.min_age_s
            if now >= due:
                removals.append(RemoveContainer(container.id))
            else:
                wakes.add(due)
    used = {c.sandbox_id for c in observed.containers}
    dead = [s.id for s in observed.sandboxes[1:] if not s.ready]
    removals += [RemoveSandbox(one) for one in dead if one not in used]
    removals += [StopSandbox(one) for one in dead if one in used and one not in knows.taken_down]
    if removals and knows.rush:
        wakes.add(now + AFTER_RUSH_S)
        return []
    return removals


def _current(observed: ObservedPod, sandbox: ObservedSandbox, name: str) -> ObservedContainer | None:
    return next((c for c in observed.containers if c.name == name and c.sandbox_id == sandbox.id), None)


class _Wakes:
    """Collects the earliest moment at which the answer may change by time alone."""

    def __init__(self) -> None:
        self.next: float | None = None

    def add(self, moment: float) -> None:
        self.next = moment if self.next is None else min(self.next, moment)

    def is_due(self, failure: object, now: float) -> bool:
        """Whether a failed step may be tried again; otherwise its moment is noted."""
        retry_at = getattr(failure, "retry_at", None)
        if retry_at is None or now >= retry_at:
            return True
        if retry_at < math.inf:
            self.add(retry_at)
        return False
