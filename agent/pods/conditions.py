"""Write a pod's conditions: PodReadyToStartContainers, Initialized, Ready, ContainersReady, PodScheduled.

In: the pod, what the runtime has, its container statuses and the conditions written before. Out: the conditions, with
transition times kept where a status did not change, and the conditions of others (readiness gates) left as they stand.
No I/O. Reasons and messages are the kubelet's.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.model.observed import ObservedPod
from agent.model.pod import Pod, PodCondition
from agent.model.status import ContainerStatus, Phase, PodStatus, timestamp
from agent.pods.container_status import ALL_RESTARTING
from agent.pods.resize import NO_RESIZE, Resize, resize_conditions
from agent.pods.restart import causes_of_restart, may_restart_all

DISRUPTION_TARGET = "DisruptionTarget"
OWNED = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
"""Types that this agent writes; all others belong to somebody else."""


def conditions(
    pod: Pod,
    observed: ObservedPod,
    phase: Phase,
    inits: tuple[ContainerStatus, ...],
    mains: tuple[ContainerStatus, ...],
    previous: PodStatus | None,
    wall: float,
    disruption: str = "",
    resize: Resize = NO_RESIZE,
) -> tuple[PodCondition, ...]:
    """The agent's own conditions; `wall` (Unix seconds) dates the changes, `disruption` is why the node ended it."""
    sandbox = observed.sandbox
    usable = sandbox is not None and sandbox.ready and (bool(sandbox.ips) or pod.spec.hostNetwork)
    containers_ready = _containers_ready(pod, phase, inits, mains)
    wanted = [
        PodCondition(type="PodReadyToStartContainers", status=_bool(usable)),
        _initialized(pod, phase, inits, mains),
        _ready(pod, containers_ready),
        containers_ready,
        PodCondition(type="PodScheduled", status="True"),
    ]
    if may_restart_all(pod):
        wanted.append(_all_restarting(pod, observed, phase))
    told = previous.condition(DISRUPTION_TARGET) if previous is not None else None
    if disruption or told is not None:
        # Once said it stays: controllers don't count such an end as the pod's own failure.
        message = disruption or (told.message if told else "")
        wanted.append(
            PodCondition(type=DISRUPTION_TARGET, status="True", reason="TerminationByKubelet", message=message)
        )
    if not phase.is_terminal:
        wanted += resize_conditions(resize)
    before = {c.type: c for c in (previous.conditions if previous else pod.status.conditions)}
    return tuple(_dated(c, before.get(c.type), pod.metadata.generation, wall) for c in wanted)


def _initialized(
    pod: Pod, phase: Phase, inits: tuple[ContainerStatus, ...], mains: tuple[ContainerStatus, ...]
) -> PodCondition:
    if phase is Phase.SUCCEEDED:
        return PodCondition(type="Initialized", status="True", reason="PodCompleted")
    # Once a main container has run, the pod was initialized, whatever became of its init containers since.
    begun = any(s.state.running or s.state.terminated or s.lastState.terminated for s in mains)
    incomplete = [
        spec.name
        for spec, status in zip(pod.spec.initContainers, inits, strict=True)
        if not (status.started if spec.is_sidecar else status.ready)
    ]
    if incomplete and not begun:
        message = f"containers with incomplete status: {_names(incomplete)}"
        return PodCondition(type="Initialized", status="False", reason="ContainersNotInitialized", message=message)
    return PodCondition(type="Initialized", status="True")


def _containers_ready(
    pod: Pod, phase: Phase, inits: tuple[ContainerStatus, ...], mains: tuple[ContainerStatus, ...]
) -> PodCondition:
    if phase is Phase.SUCCEEDED:
        return PodCondition(type="ContainersReady", status="False", reason="PodCompleted")
    if phase is Phase.FAILED:
        return PodCondition(type="ContainersReady", status="False", reason="PodFailed")
    sidecars = [s for spec, s in zip(pod.spec.initContainers, inits, strict=True) if spec.is_sidecar]
    unready = [s.name for s in (*sidecars, *mains) if not s.ready]
    if unready:
        message = f"containers with unready status: {_names(unready)}"
        return PodCondition(type="ContainersReady", status="False", reason="ContainersNotReady", message=message)
    return PodCondition(type="ContainersReady", status="True")


def _ready(pod: Pod, containers_ready: PodCondition) -> PodCondition:
    if containers_ready.status != "True":
        return PodCondition(
            type="Ready", status="False", reason=containers_ready.reason, message=containers_ready.message
        )
    gates = {c.type: c.status for c in pod.status.conditions}
    faults: list[str] = []
    for gate in pod.spec.readinessGates:
        status = gates.get(gate.conditionType)
        if status is None:
            faults.append(f'corresponding condition of pod readiness gate "{gate.conditionType}" does not exist.')
        elif status != "True":
            faults.append(f'the status of pod readiness gate "{gate.conditionType}" is not "True", but {status}')
    if faults:
        return PodCondition(type="Ready", status="False", reason="ReadinessGatesNotReady", message=", ".join(faults))
    return PodCondition(type="Ready", status="True")


def _all_restarting(pod: Pod, observed: ObservedPod, phase: Phase) -> PodCondition:
    """True from the end that makes the pod start over until all its containers are removed."""
    if phase.is_terminal:
        reason = "PodCompleted" if phase is Phase.SUCCEEDED else "PodFailed"
        return PodCondition(type=ALL_RESTARTING, status="False", reason=reason)
    if not causes_of_restart(pod, observed):
        return PodCondition(type=ALL_RESTARTING, status="False")
    return PodCondition(
        type=ALL_RESTARTING,
        status="True",
        reason="RestartAllContainersStarted",
        message="container exited with restart policy rule",
    )


def _dated(condition: PodCondition, before: PodCondition | None, generation: int, wall: float) -> PodCondition:
    same = before is not None and before.status == condition.status and before.lastTransitionTime
    return PodCondition(
        type=condition.type,
        status=condition.status,
        reason=condition.reason,
        message=condition.message,
        lastTransitionTime=before.lastTransitionTime if before is not None and same else timestamp(wall),
        observedGeneration=generation or None,
    )


def _names(names: Iterable[str]) -> str:
    return f"[{' '.join(names)}]"


def _bool(value: bool) -> str:
    return "True" if value else "False"
