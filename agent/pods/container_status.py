"""Write the statuses of a pod's containers: what each does now, what it did before, and why it waits.

In: the pod, what the runtime has of it, the worker's knowledge, and the status written before (for containers that the
runtime has no more). Out: ContainerStatuses in the spec's order. No I/O; reasons are the kubelet's.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from agent.model.container import Container, EphemeralContainer
from agent.model.observed import ContainerState, ObservedContainer, ObservedPod
from agent.model.pod import Pod
from agent.model.status import (
    ContainerStatus,
    PodStatus,
    Running,
    State,
    Terminated,
    VolumeMountStatus,
    Waiting,
    timestamp,
)
from agent.pods import status_details as details
from agent.pods.go_duration import go_duration
from agent.pods.knowledge import NO_HEALTH, Failure, Knowledge
from agent.pods.restart import causes_of_restart, is_renewed, restart_due, restarts, runs_again
from agent.pods.translate.identity import spec_hash

MESSAGES_LIMIT_BYTES = 12 * 1024
"""Of all termination messages of a pod together; each container has an equal share."""
CRASH_LOOP = "CrashLoopBackOff"
ALL_RESTARTING = "AllContainersRestarting"
"""The type of the condition of a pod that starts over."""
LOST = Terminated(
    exitCode=137,
    reason="ContainerStatusUnknown",
    message="The container was running when it was last seen, and the runtime cannot tell what became of it",
)
RESTART_ON_DISK = "RestartOnDisk"
"""Ours: the node ended the container for what it wrote, to start it anew."""
RESTARTING_ALL = "RestartingAllContainers"
_REMOVED = "The container is removed because RestartAllContainers in place"
"""Reason and text are the kubelet's, for every container of a pod that starts over."""

_REMOVED_END = Terminated(exitCode=137, reason=RESTARTING_ALL, message=_REMOVED)
DONE = Terminated(
    exitCode=0,
    reason="Completed",
    message="The runtime has the container no more; it must have done its work, for what comes after it was made",
)
"""An init container of which nobody has kept a status."""

_Statuses = tuple[ContainerStatus, ...]


def container_statuses(
    pod: Pod,
    observed: ObservedPod,
    knows: Knowledge,
    previous: PodStatus | None,
    now: float,
    *,
    finished: bool,
    recursive_read_only: bool = False,
) -> tuple[_Statuses, _Statuses, _Statuses]:
    """(init, main and ephemeral containers). `finished`: none of them will be started again; `recursive_read_only`: the

    runtime can mount so.
    """
    final = finished or knows.ended or knows.stop is not None
    before = {s.name: s for s in previous.all_containers} if previous else {}
    starting_over = bool(causes_of_restart(pod, observed)) or (previous is not None and is_restarting_all(previous))
    share = MESSAGES_LIMIT_BYTES // max(1, len(pod.spec.all_containers))
    writer = _Writer(pod, observed, knows, now, final, share, starting_over, recursive_read_only)
    inits = tuple(writer.status(c, before.get(c.name), init=True) for c in pod.spec.initContainers)
    mains = tuple(writer.status(c, before.get(c.name), init=False) for c in pod.spec.containers)
    ephemeral = tuple(writer.ephemeral(c, before.get(c.name)) for c in pod.spec.ephemeralContainers)
    return inits, mains, ephemeral


def is_restarting_all(status: PodStatus) -> bool:
    """Whether this status says that the pod's containers are being removed so that it starts over."""
    condition = status.condition(ALL_RESTARTING)
    return condition is not None and condition.status == "True"


def entered_backoff(before: PodStatus | None, after: PodStatus) -> tuple[str, ...]:
    """The containers that have begun to wait for a restart since the status `before`; theirs is one event each time."""
    waited = frozenset(_in_backoff(before)) if before else frozenset[str]()
    return tuple(name for name in _in_backoff(after) if name not in waited)


def _in_backoff(status: PodStatus) -> Iterator[str]:
    for container in (*status.initContainerStatuses, *status.containerStatuses):
        if container.state.waiting is not None and container.state.waiting.reason == CRASH_LOOP:
            yield container.name


class _Writer:
    def __init__(
        self,
        pod: Pod,
        observed: ObservedPod,
        knows: Knowledge,
        now: float,
        final: bool,
        message_limit: int,
        starting_over: bool,
        recursive_read_only: bool,
    ) -> None:
        self._pod = pod
        self._observed = observed
        self._knows = knows
        self._now = now
        self._final = final
        self._message_limit = message_limit
        self._starting_over = starting_over
        self._recursive_read_only = recursive_read_only

    def status(self, spec: Container, before: ContainerStatus | None, *, init: bool) -> ContainerStatus:
        history = [c for c in self._observed.containers if c.name == spec.name]
        if not history:
            return self._absent(spec, before, init=init)
        newest = history[0]
        ended_before = next((c for c in history[1:] if c.state is ContainerState.EXITED), None)
        last = State(terminated=self._terminated(ended_before)) if ended_before else _told_end(before, newest)
        runs_to_end = init and not spec.is_sidecar
        ready, started = False, False
        match newest.state:
            case ContainerState.RUNNING:
                health = self._knows.health.get(newest.id, NO_HEALTH)
                state = State(running=Running(startedAt=_time(newest.started_at_ns)))
                started = health.started
                ready = started and health.ready and not runs_to_end
            case ContainerState.EXITED:
                state = State(terminated=self._terminated(newest))
                # An init container that did its work counts as ready.
                ready = runs_to_end and newest.exit_code == 0
                if self._will_restart(spec, newest, init=init) and (waiting := self._restart_wait(spec, newest)):
                    state, last = State(waiting=waiting), state
            case ContainerState.UNKNOWN if newest.started_at_ns:
                state = State(terminated=LOST)
            case _:
                state = State(waiting=self._waiting(self._knows.failures.get(spec.name), initializing=False))
        resources, requests = details.allocated(
            spec, container_id := f"containerd://{newest.id}", before, self._knows.sizes.get(newest.id)
        )
        return ContainerStatus(
            name=spec.name,
            state=state,
            lastState=last,
            image=newest.image,
            imageID=newest.image_id,
            ready=ready,
            restartCount=max(newest.attempt, before.restartCount if before is not None else 0),
            started=started,
            containerID=container_id,
            allocatedResources=requests,
            resources=resources,
            volumeMounts=self._volume_mounts(spec),
            user=details.user(newest),
        )

    def ephemeral(self, spec: Container, before: ContainerStatus | None) -> ContainerStatus:
        """It runs once, and nobody asks whether it is ready."""
        if any(c.name == spec.name for c in self._observed.containers):
            made = self.status(spec, before, init=False)
        elif before is not None and before.state.terminated is not None:
            return before
        else:
            made = self._absent(spec, before, init=False)
            ran = before is not None and before.state.running is not None
            if ran or self._knows.attempts.get(spec.name, -1) >= 0:
                known = before if before is not None and ran else made
                made = msgspec.structs.replace(known, state=State(terminated=LOST), lastState=State())
        return msgspec.structs.replace(made, ready=False, started=None)

    def _absent(self, spec: Container, before: ContainerStatus | None, *, init: bool) -> ContainerStatus:
        """The runtime has no such container: it was never made, or somebody removed it."""
        last, count = State(), 0
        if init and not spec.is_sidecar and before is None and self._main_was_made:
            return ContainerStatus(
                name=spec.name,
                image=spec.image,
                state=State(terminated=DONE),
                ready=True,
                started=False,
                volumeMounts=self._volume_mounts(spec),
            )
        waiting = self._waiting(self._knows.failures.get(spec.name), initializing=bool(self._pod.spec.initContainers))
        if before is not None:
            last, count = before.lastState, before.restartCount
            over = self._starting_over and not self._final and not isinstance(spec, EphemeralContainer)
            if over and before.state.waiting is None:
                waiting = Waiting(reason=RESTARTING_ALL, message=_REMOVED)
                last, count = State(terminated=_REMOVED_END), count + 1
            elif before.state.terminated is not None:
                if self._final or (init and not spec.is_sidecar):
                    return before
                last = before.state
            elif before.state.running is not None:
                last, count = State(terminated=LOST), count + (not self._final)
        return ContainerStatus(
            name=spec.name,
            image=spec.image,
            state=State(waiting=waiting),
            lastState=last,
            restartCount=count,
            started=False,
            volumeMounts=self._volume_mounts(spec),
        )

    @property
    def _main_was_made(self) -> bool:
        return any(self._observed.newest(main.name) is not None for main in self._pod.spec.containers)

    def _volume_mounts(self, spec: Container) -> tuple[VolumeMountStatus, ...]:
        return details.volume_mounts(spec, recursive_read_only=self._recursive_read_only)

    def _will_restart(self, spec: Container, newest: ObservedContainer, *, init: bool) -> bool:
        if self._final or isinstance(spec, EphemeralContainer):
            return False
        if init and not spec.is_sidecar and newest.exit_code == 0:
            return False
        return runs_again(self._pod, spec, newest, self._knows.replaced)

    def _restart_wait(self, spec: Container, newest: ObservedContainer) -> Waiting | None:
        """Why an ended container is not running again yet; None where its restart is under way."""
        if failure := self._knows.failures.get(spec.name):
            return Waiting(reason=failure.reason, message=failure.message)
        same = newest.spec_hash == spec_hash(spec)
        backoff = self._knows.backoffs.get(spec.name) if same else None
        knows, now = self._knows, self._now
        due = restart_due(self._observed, newest, backoff, knows.ended_at, knows.replaced, now)
        if backoff is None or now >= due:
            if restarts(self._pod, spec, newest.exit_code):
                return None
            # It was ended to be started anew: for the API server an end that its policy lets stand would be for good.
            return self._waiting(None, initializing=False)
        meta = self._pod.metadata
        name = f"{meta.name}_{meta.namespace}({meta.uid})"
        message = f"back-off {go_duration(backoff.delay_s)} restarting failed container={spec.name} pod={name}"
        return Waiting(reason=CRASH_LOOP, message=message)

    def _waiting(self, failure: Failure | None, *, initializing: bool) -> Waiting:
        if self._knows.refused:
            return Waiting(reason=self._knows.refused_reason, message=self._knows.refused)
        if failure is not None:
            return Waiting(reason=failure.reason, message=failure.message)
        return Waiting(reason="PodInitializing" if initializing else "ContainerCreating")

    def _terminated(self, container: ObservedContainer) -> Terminated:
        said, reason = container.message, container.reason
        if is_renewed(container, self._knows):
            reason, said = RESTART_ON_DISK, f"{self._knows.renewed[container.id]} {said}".rstrip()
        message = said.encode()[: self._message_limit].decode(errors="ignore")
        return Terminated(
            exitCode=container.exit_code,
            reason=reason or ("Completed" if container.exit_code == 0 else "Error"),
            message=message,
            startedAt=_time(container.started_at_ns),
            finishedAt=_time(container.finished_at_ns),
            containerID=f"containerd://{container.id}",
        )


def _told_end(before: ContainerStatus | None, newest: ObservedContainer) -> State:
    """How the run before ended, where only the status written before still knows it."""
    if before is None:
        return State()
    if before.state.terminated is not None and before.containerID != f"containerd://{newest.id}":
        return before.state
    return before.lastState


def _time(unix_ns: int) -> str | None:
    return timestamp(unix_ns / 1e9) if unix_ns else None
