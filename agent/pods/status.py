"""Write a pod's status from what is known of it.

In: the pod, the pod as the runtime has it, the worker's knowledge, the node's addresses, the status written before, and
the wall clock. Out: a PodStatus, as the kubelet would write it. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from agent.model.container import Container
from agent.model.observed import ContainerState, ObservedContainer, ObservedPod
from agent.model.pod import Pod
from agent.model.status import IP, ContainerStatus, Phase, PodStatus, ResourceStatus, timestamp
from agent.pods.addresses import pod_addresses
from agent.pods.conditions import conditions
from agent.pods.container_status import container_statuses
from agent.pods.knowledge import Knowledge, StopCause
from agent.pods.qos import qos_class
from agent.pods.resize import with_whole
from agent.pods.restart import causes_of_restart, runs_again
from agent.pods.status_details import with_devices
from agent.pods.status_resources import pod_resources
from agent.pods.unseen_ends import with_unseen_ends


class StatusContext(msgspec.Struct, frozen=True):
    """What a status says of the node and of the time."""

    host_ips: Sequence[str]
    wall: float
    """Unix seconds."""
    now: float
    """Monotonic seconds, the base of `Knowledge`."""
    recursive_read_only: bool = False
    """The runtime can mount so."""
    devices: Mapping[str, tuple[ResourceStatus, ...]] = msgspec.field(default_factory=dict)
    """By container: the health of its devices."""


def pod_status(
    pod: Pod, observed: ObservedPod, knows: Knowledge, previous: PodStatus | None, context: StatusContext
) -> PodStatus:
    """The status to write now. `previous` keeps start and transition times where nothing changed."""
    inits, mains, ephemeral = container_statuses(
        pod,
        observed,
        knows,
        previous,
        context.now,
        finished=is_finished(pod, observed, knows),
        recursive_read_only=context.recursive_read_only,
    )
    mains = with_devices(mains, context.devices, previous)
    phase = _phase(pod, observed, knows, inits, mains, previous)
    # One that was never admitted has no container to say anything of.
    ended = knows.stop is not None and (knows.stop.cause is StopCause.DELETED or observed.sandbox is not None)
    if ended and phase.is_terminal:
        inits, mains = with_unseen_ends(pod, inits, mains, previous)
    disruption = knows.stop.disruption if knows.stop is not None else ""
    made = conditions(pod, observed, phase, inits, mains, previous, context.wall, disruption, knows.resize)
    if _was_rejected(pod, knows, previous):
        # What kubectl shows of a pod is what its containers wait for, rather than the pod's own reason.
        inits, mains = (), ()
    reason, message = _why(pod, phase, knows, previous)
    ips = _pod_ips(pod, observed, knows, previous, context)
    start_time = (previous.startTime if previous else None) or pod.status.startTime or timestamp(context.wall)
    resizing = with_whole(pod, knows.whole) if knows.resize.in_progress else None
    resources, allocated = pod_resources(pod, (*inits, *mains), resizing)
    return PodStatus(
        phase=phase,
        conditions=made,
        reason=reason,
        message=message,
        hostIP=context.host_ips[0] if context.host_ips else "",
        hostIPs=tuple(IP(ip=ip) for ip in context.host_ips),
        podIP=ips[0] if ips else "",
        podIPs=tuple(IP(ip=ip) for ip in ips),
        startTime=start_time,
        qosClass=qos_class(pod),
        initContainerStatuses=inits,
        containerStatuses=mains,
        ephemeralContainerStatuses=ephemeral,
        observedGeneration=pod.metadata.generation,
        allocatedResources=allocated,
        resources=resources,
    )


def _was_rejected(pod: Pod, knows: Knowledge, previous: PodStatus | None) -> bool:
    """By this agent, or by one before it: then it ended without a word of its containers."""
    if previous is not None:
        return knows.rejected or (previous.phase is Phase.FAILED and not previous.containerStatuses)
    return knows.rejected or (pod.status.phase == Phase.FAILED and not pod.status.containerStatuses)


def is_finished(pod: Pod, observed: ObservedPod, knows: Knowledge) -> bool:
    """Whether no container of the pod will be started again: it succeeded or failed, by its own containers or because
    the API server's object says so, which nobody may take back.

    Sidecars do not count: they end when this becomes true.
    """
    if pod.status.phase in (Phase.SUCCEEDED, Phase.FAILED):
        return True
    if causes_of_restart(pod, observed):
        return False
    if _init_failed(pod, observed, knows):
        return True
    return all(_is_through(pod, c, observed.newest(c.name), knows) for c in pod.spec.containers)


def _init_failed(pod: Pod, observed: ObservedPod, knows: Knowledge) -> bool:
    inits = [(c, observed.newest(c.name)) for c in pod.spec.initContainers if not c.is_sidecar]
    return any(n is not None and n.exit_code != 0 and _is_through(pod, c, n, knows) for c, n in inits)


def _is_through(pod: Pod, container: Container, newest: ObservedContainer | None, knows: Knowledge) -> bool:
    """It has ended and will not be started again."""
    ended = newest is not None and newest.state is ContainerState.EXITED
    return ended and newest is not None and not runs_again(pod, container, newest, knows.replaced)


def _phase(
    pod: Pod,
    observed: ObservedPod,
    knows: Knowledge,
    inits: tuple[ContainerStatus, ...],
    mains: tuple[ContainerStatus, ...],
    previous: PodStatus | None,
) -> Phase:
    for said in (previous.phase if previous else "", pod.status.phase):
        if said in (Phase.SUCCEEDED, Phase.FAILED):
            return Phase(said)
    waiting = _initializing(pod, inits, mains) or any(_never_ran(s) for s in mains)
    going_on = Phase.PENDING if waiting else Phase.RUNNING
    # A terminal phase is final for everybody, so it is not said while something may still run.
    if observed.alive:
        return going_on
    if knows.stop is not None and knows.stop.cause is StopCause.FAILED:
        return Phase.FAILED
    succeeded = not _init_failed(pod, observed, knows) and all(_exit(s) == 0 for s in mains)
    # A deleted pod is not tried again, whatever its restartPolicy: also where it never came to run, this is its end.
    # A static pod has nobody who waits for its end.
    if knows.stop is not None and knows.stop.cause is StopCause.PAUSED:
        return going_on
    ended = knows.stop is not None and not pod.is_static
    if ended or is_finished(pod, observed, knows):
        return Phase.SUCCEEDED if succeeded else Phase.FAILED
    return going_on


def _why(pod: Pod, phase: Phase, knows: Knowledge, previous: PodStatus | None) -> tuple[str, str]:
    """Reason and message, which belong to the phase: they stay as long as it does, whoever wrote them."""
    if knows.stop is not None and knows.stop.cause is StopCause.FAILED and phase is Phase.FAILED:
        return knows.stop.reason, knows.stop.message
    if knows.refused:
        return knows.refused_reason, knows.refused
    if previous is not None and previous.phase is phase and previous.reason:
        return previous.reason, previous.message
    if pod.status.phase == phase:
        return pod.status.reason, pod.status.message
    return "", ""


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


def differs_beyond_generation(before: PodStatus, status: PodStatus) -> bool:
    """Whether it tells more than which generation of the pod it is about."""

    def bare(one: PodStatus) -> PodStatus:
        conditions = tuple(replace(condition, observedGeneration=None) for condition in one.conditions)
        return replace(one, observedGeneration=0, conditions=conditions)

    return bare(before) != bare(status)


def _never_ran(status: ContainerStatus) -> bool:
    return not (status.state.running or status.state.terminated or status.lastState.terminated)


def _pod_ips(
    pod: Pod, observed: ObservedPod, knows: Knowledge, previous: PodStatus | None, context: StatusContext
) -> tuple[str, ...]:
    before = tuple(entry.ip for entry in previous.podIPs) if previous else ()
    sandbox = observed.sandbox
    if pod.spec.hostNetwork and not knows.refused:
        return pod_addresses(pod, (), context.host_ips, before)
    if sandbox is not None and sandbox.ready and sandbox.ips:
        return pod_addresses(pod, sandbox.ips, context.host_ips)
    # The address of an ended pod stays in its status, as users of `kubectl get -o wide` expect.
    return before
