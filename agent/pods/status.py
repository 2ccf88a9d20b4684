"""Write a pod's status from what is known of it.

In: the pod, the pod as the runtime has it, the worker's knowledge, the node's addresses, the status written before, and
the wall clock. Out: a PodStatus, as the kubelet would write it. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.observed import ContainerState, ObservedContainer, ObservedPod
from agent.model.pod import Container, Pod
from agent.model.status import (
    IP,
    ContainerStatus,
    Phase,
    PodStatus,
    Running,
    State,
    Terminated,
    Waiting,
    timestamp,
)
from agent.pods.backoff import ready_at
from agent.pods.conditions import conditions
from agent.pods.knowledge import NO_HEALTH, Failure, Knowledge, StopCause
from agent.pods.qos import qos_class


@dataclass(frozen=True, slots=True)
class StatusContext:
    """What a status says of the node and of the time."""

    host_ips: tuple[str, ...]
    wall: float
    """Unix seconds."""
    now: float
    """Monotonic seconds, the base of `Knowledge`."""


def pod_status(
    pod: Pod, observed: ObservedPod, knows: Knowledge, previous: PodStatus | None, context: StatusContext
) -> PodStatus:
    """The status to write now. `previous` keeps start and transition times where nothing changed."""
    starting = bool(pod.spec.initContainers)
    inits = tuple(_container(pod, c, observed, knows, context.now, initializing=False) for c in pod.spec.initContainers)
    mains = tuple(_container(pod, c, observed, knows, context.now, initializing=starting) for c in pod.spec.containers)
    phase = _phase(pod, observed, knows, inits, mains, previous)
    failed_by_node = knows.stop is not None and knows.stop.cause is StopCause.FAILED
    ips = _pod_ips(pod, observed, previous, context)
    start_time = (previous.startTime if previous else None) or pod.status.startTime or timestamp(context.wall)
    return PodStatus(
        phase=phase,
        conditions=conditions(pod, observed, phase, inits, mains, previous, context.wall),
        reason=knows.stop.reason if failed_by_node and knows.stop else "",
        message=knows.stop.message if failed_by_node and knows.stop else "",
        hostIP=context.host_ips[0] if context.host_ips else "",
        hostIPs=tuple(IP(ip=ip) for ip in context.host_ips),
        podIP=ips[0] if ips else "",
        podIPs=tuple(IP(ip=ip) for ip in ips),
        startTime=start_time,
        qosClass=qos_class(pod),
        initContainerStatuses=inits,
        containerStatuses=mains,
        observedGeneration=pod.metadata.generation,
    )


def is_finished(pod: Pod, observed: ObservedPod) -> bool:
    """Whether no container of the pod will be started again: it succeeded or failed by its own containers.

    Sidecars do not count: they end when this becomes true.
    """
    if pod.spec.restartPolicy == "Always":
        return False
    if _init_failed(pod, observed):
        return True
    newest = [observed.newest(c.name) for c in pod.spec.containers]
    if not all(c is not None and c.state is ContainerState.EXITED for c in newest):
        return False
    return pod.spec.restartPolicy == "Never" or all(c is not None and c.exit_code == 0 for c in newest)


def _init_failed(pod: Pod, observed: ObservedPod) -> bool:
    if pod.spec.restartPolicy != "Never":
        return False
    newest = [observed.newest(c.name) for c in pod.spec.initContainers if not c.is_sidecar]
    return any(c is not None and c.state is ContainerState.EXITED and c.exit_code != 0 for c in newest)


def _phase(
    pod: Pod,
    observed: ObservedPod,
    knows: Knowledge,
    inits: tuple[ContainerStatus, ...],
    mains: tuple[ContainerStatus, ...],
    previous: PodStatus | None,
) -> Phase:
    if previous is not None and previous.phase.is_terminal:
        return previous.phase
    failed_by_node = knows.stop is not None and knows.stop.cause is StopCause.FAILED
    if failed_by_node:
        wanted = Phase.FAILED
    elif is_finished(pod, observed):
        succeeded = not _init_failed(pod, observed) and all(
            s.state.terminated is not None and s.state.terminated.exitCode == 0 for s in mains
        )
        wanted = Phase.SUCCEEDED if succeeded else Phase.FAILED
    elif knows.stop is not None and pod.spec.restartPolicy != "Always" and _all_ended(mains):
        # Deleted while it would have been tried again: nothing will, so this is its end.
        wanted = Phase.SUCCEEDED if all(_exit(s) == 0 for s in mains) else Phase.FAILED
    elif _initializing(pod, inits, mains) or any(_never_ran(s) for s in mains):
        return previous.phase if previous and knows.stop else Phase.PENDING
    else:
        return Phase.RUNNING
    # A terminal phase is final for everybody, so it is not said while something still runs.
    if observed.running:
        return previous.phase if previous else Phase.RUNNING
    return wanted


def _all_ended(mains: tuple[ContainerStatus, ...]) -> bool:
    return all(_exit(s) is not None for s in mains)


def _exit(status: ContainerStatus) -> int | None:
    ended = status.state.terminated or status.lastState.terminated
    return None if status.state.running or ended is None else ended.exitCode


def _initializing(pod: Pod, inits: tuple[ContainerStatus, ...], mains: tuple[ContainerStatus, ...]) -> bool:
    if any(s.state.running or s.state.terminated or s.lastState.terminated for s in mains):
        return False
    for spec, status in zip(pod.spec.initContainers, inits, strict=True):
        done = status.state.terminated is not None and status.state.terminated.exitCode == 0
        if not (bool(status.started) if spec.is_sidecar else done):
            return True
    return False


def _never_ran(status: ContainerStatus) -> bool:
    return not (status.state.running or status.state.terminated or status.lastState.terminated)


def _container(
    pod: Pod, spec: Container, observed: ObservedPod, knows: Knowledge, now: float, *, initializing: bool
) -> ContainerStatus:
    history = [c for c in observed.containers if c.name == spec.name]
    newest = history[0] if history else None
    failure = knows.failures.get(spec.name)
    if newest is None:
        return ContainerStatus(
            name=spec.name,
            image=spec.image,
            state=State(waiting=_waiting(knows, failure, initializing=initializing)),
            started=False,
        )
    before = next((c for c in history[1:] if c.state is ContainerState.EXITED), None)
    last = State(terminated=_terminated(before)) if before else State()
    health = knows.health.get(newest.id, NO_HEALTH)
    ready, started = False, False
    match newest.state:
        case ContainerState.RUNNING:
            state = State(running=Running(startedAt=_time(newest.started_at_ns)))
            ready, started = health.ready and health.started, health.started
        case ContainerState.EXITED if knows.stop is None and _will_restart(pod, spec, newest):
            waiting = _restart_wait(pod, spec, newest, knows, now)
            ended = State(terminated=_terminated(newest))
            state, last = (State(waiting=waiting), ended) if waiting else (ended, last)
        case ContainerState.EXITED:
            state = State(terminated=_terminated(newest))
            # An init container that did its work counts as ready, as the kubelet has it.
            ready = spec in pod.spec.initContainers and newest.exit_code == 0
        case _:
            state = State(waiting=_waiting(knows, failure, initializing=False))
    return ContainerStatus(
        name=spec.name,
        state=state,
        lastState=last,
        image=newest.image,
        imageID=newest.image_id,
        ready=ready,
        restartCount=newest.attempt,
        started=started,
        containerID=f"containerd://{newest.id}",
    )


def _will_restart(pod: Pod, spec: Container, newest: ObservedContainer) -> bool:
    if spec.is_sidecar:
        return True
    if spec in pod.spec.initContainers:
        return newest.exit_code != 0 and pod.spec.restartPolicy != "Never"
    return pod.spec.restartPolicy == "Always" or (pod.spec.restartPolicy == "OnFailure" and newest.exit_code != 0)


def _restart_wait(pod: Pod, spec: Container, newest: ObservedContainer, knows: Knowledge, now: float) -> Waiting | None:
    """Why an ended container is not running again yet; None where its restart is under way."""
    if failure := knows.failures.get(spec.name):
        return Waiting(reason=failure.reason, message=failure.message)
    backoff = knows.backoffs.get(spec.name)
    if backoff is None or now >= ready_at(backoff, knows.ended_at.get(newest.id, now)):
        return None
    delay = _duration(backoff.delay_s)
    name, namespace, uid = pod.metadata.name, pod.metadata.namespace, pod.uid
    message = f"back-off {delay} restarting failed container={spec.name} pod={name}_{namespace}({uid})"
    return Waiting(reason="CrashLoopBackOff", message=message)


def _waiting(knows: Knowledge, failure: Failure | None, *, initializing: bool) -> Waiting:
    if knows.refused:
        return Waiting(reason="UnsupportedField", message=knows.refused)
    if failure is not None:
        return Waiting(reason=failure.reason, message=failure.message)
    return Waiting(reason="PodInitializing" if initializing else "ContainerCreating")


def _terminated(container: ObservedContainer) -> Terminated:
    return Terminated(
        exitCode=container.exit_code,
        reason=container.reason or ("Completed" if container.exit_code == 0 else "Error"),
        message=container.message,
        startedAt=_time(container.started_at_ns),
        finishedAt=_time(container.finished_at_ns),
        containerID=f"containerd://{container.id}",
    )


def _pod_ips(pod: Pod, observed: ObservedPod, previous: PodStatus | None, context: StatusContext) -> tuple[str, ...]:
    if pod.spec.hostNetwork:
        return context.host_ips if observed.sandboxes else ()
    sandbox = observed.sandbox
    if sandbox is not None and sandbox.ready and sandbox.ips:
        return sandbox.ips
    # The address of an ended pod stays in its status, as users of `kubectl get -o wide` expect.
    return tuple(entry.ip for entry in previous.podIPs) if previous else ()


def _time(unix_ns: int) -> str | None:
    return timestamp(unix_ns / 1e9) if unix_ns else None


def _duration(seconds: float) -> str:
    """As Go prints it: 10s, 2m40s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
