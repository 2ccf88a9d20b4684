"""What a simulated pod does, as a function of time alone.

In: the pod, its life so far and the moment. Out: its status, and the moment at which that changes next. Pure: whoever
keeps the life over a restart finds the pod as it would have been. Main containers run alike, init containers end at
once, every running container is ready. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from agent.model.container import Container
from agent.model.pod import Pod, PodCondition
from agent.model.status import IP, ContainerStatus, Phase, PodStatus, Running, State, Terminated, Waiting, timestamp
from agent.pods.qos import qos_class


class Life(msgspec.Struct, frozen=True):
    created_at: float
    start_s: float
    run_s: float | None
    """Each run of a main container; None: until it is stopped."""
    exit_code: int
    stop_at: float | None = None
    """When everything has ended, whatever runs."""

    @property
    def started_at(self) -> float:
        return self.created_at + self.start_s


def is_over(pod: Pod, life: Life, now: float) -> bool:
    """It has ended by itself or was stopped."""
    if life.stop_at is not None and now >= life.stop_at:
        return True
    return life.run_s is not None and not _restarts(pod, life) and now >= life.started_at + life.run_s


def next_change(pod: Pod, life: Life, now: float) -> float | None:
    """None: it stays as it is until somebody stops it."""
    moments = [life.stop_at]
    if now < life.started_at:
        moments.append(life.started_at)
    elif life.run_s is not None:
        moments.append(life.started_at + life.run_s * (runs(life, now) + 1))
    coming = [moment for moment in moments if moment is not None and moment > now]
    return None if is_over(pod, life, now) else min(coming, default=None)


def runs(life: Life, now: float) -> int:
    """How many times a main container has ended and was started again, if it is."""
    return 0 if life.run_s is None else max(0, int((now - life.started_at) / life.run_s + 1e-9))


def status(pod: Pod, life: Life, address: str, host_ips: Sequence[str], now: float) -> PodStatus:
    mains = tuple(_main(pod, one, life, now) for one in pod.spec.containers)
    inits = tuple(
        _main(pod, one, life, now) if one.is_sidecar else _init(pod, one, life, now) for one in pod.spec.initContainers
    )
    over = is_over(pod, life, now)
    if over:
        failed = any(one.state.terminated and one.state.terminated.exitCode for one in mains)
        phase = Phase.FAILED if failed else Phase.SUCCEEDED
    else:
        phase = Phase.PENDING if now < life.started_at else Phase.RUNNING
    ips = host_ips if pod.spec.hostNetwork else (address,)
    shown = tuple(IP(ip) for ip in ips) if phase is not Phase.PENDING else ()
    return PodStatus(
        phase=phase,
        conditions=tuple(_conditions(pod, life, phase, now)),
        hostIP=next(iter(host_ips), ""),
        hostIPs=tuple(IP(ip) for ip in host_ips),
        podIP=shown[0].ip if shown else "",
        podIPs=shown,
        startTime=timestamp(life.created_at),
        qosClass=qos_class(pod),
        initContainerStatuses=inits,
        containerStatuses=mains,
        observedGeneration=pod.metadata.generation,
    )


def _main(pod: Pod, container: Container, life: Life, now: float) -> ContainerStatus:
    if now < life.started_at:
        return _status(pod, container, State(waiting=Waiting(reason="ContainerCreating")), 0)
    run = runs(life, now)
    if life.stop_at is not None and now >= life.stop_at:
        code, at = (life.exit_code, life.stop_at) if is_over(pod, life, life.stop_at - 1e-6) else (0, life.stop_at)
        if life.run_s is not None and not _restarts(pod, life):
            run, at = 0, min(at, life.started_at + life.run_s)
        return _status(pod, container, State(terminated=_ended(pod, container, life, run, code, at)), run)
    if is_over(pod, life, now):
        assert life.run_s is not None
        at = life.started_at + life.run_s
        return _status(pod, container, State(terminated=_ended(pod, container, life, 0, life.exit_code, at)), 0)
    running = State(running=Running(startedAt=timestamp(_run_began(life, run))))
    last = State()
    if run:
        last = State(terminated=_ended(pod, container, life, run - 1, life.exit_code, _run_began(life, run)))
    return _status(pod, container, running, run, last)


def _init(pod: Pod, container: Container, life: Life, now: float) -> ContainerStatus:
    if now < life.started_at:
        return _status(pod, container, State(waiting=Waiting(reason="PodInitializing")), 0)
    done = State(terminated=_ended(pod, container, life, 0, 0, life.started_at))
    return ContainerStatus(
        name=container.name,
        state=done,
        image=container.image,
        ready=True,
        started=False,
        containerID=_id(pod, container, 0),
    )


def _status(pod: Pod, container: Container, state: State, run: int, last: State | None = None) -> ContainerStatus:
    running = state.running is not None
    return ContainerStatus(
        name=container.name,
        state=state,
        image=container.image,
        ready=running,
        started=running,
        restartCount=run,
        lastState=last or State(),
        containerID="" if state.waiting is not None else _id(pod, container, run),
    )


def _ended(pod: Pod, container: Container, life: Life, run: int, code: int, at: float) -> Terminated:
    return Terminated(
        exitCode=code,
        reason="Error" if code else "Completed",
        startedAt=timestamp(min(at, _run_began(life, run))),
        finishedAt=timestamp(at),
        containerID=_id(pod, container, run),
    )


def _run_began(life: Life, run: int) -> float:
    return life.started_at + run * (life.run_s or 0.0)


def _restarts(pod: Pod, life: Life) -> bool:
    return pod.spec.restartPolicy == "Always" or (pod.spec.restartPolicy == "OnFailure" and life.exit_code != 0)


def _id(pod: Pod, container: Container, run: int) -> str:
    return f"mock://{pod.uid}-{container.name}-{run}"


def _conditions(pod: Pod, life: Life, phase: Phase, now: float) -> Iterable[PodCondition]:
    begun = phase is not Phase.PENDING
    ready, why = phase is Phase.RUNNING, {Phase.SUCCEEDED: "PodCompleted", Phase.FAILED: "PodFailed"}.get(phase)
    if not begun:
        why = "ContainersNotReady"
    since = life.started_at if begun else life.created_at
    if phase.is_terminal:
        since = min(now, life.stop_at or now, life.started_at + (life.run_s or now))
    for kind, holds in (
        ("PodReadyToStartContainers", ready),
        ("Initialized", begun),
        ("Ready", ready),
        ("ContainersReady", ready),
        ("PodScheduled", True),
    ):
        named = kind in ("Ready", "ContainersReady") and not holds
        yield PodCondition(
            type=kind,
            status="True" if holds else "False",
            reason=why if named else None,
            lastTransitionTime=timestamp(life.created_at if kind == "PodScheduled" else since),
            observedGeneration=pod.metadata.generation or None,
        )
