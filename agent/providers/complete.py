"""Fill in what a provider left out of a pod's status. Pure.

In: the pod, the status as the provider tells it, the one told before. Out: the same status with conditions, start
time, quality of service and generation, so that Deployments, Services and `kubectl` can tell how the pod is. What the
provider says itself stays.
"""

from __future__ import annotations

import msgspec

from agent.model.observed import ObservedPod
from agent.model.pod import Pod, PodCondition
from agent.model.status import PodStatus, timestamp
from agent.pods.conditions import conditions
from agent.pods.qos import qos_class

_OF_A_SANDBOX = "PodReadyToStartContainers"


def complete(pod: Pod, status: PodStatus, before: PodStatus | None, wall: float) -> PodStatus:
    """`wall` (Unix seconds) dates what is new."""
    return msgspec.structs.replace(
        status,
        conditions=status.conditions or _conditions(pod, status, before, wall),
        startTime=status.startTime or (before.startTime if before else None) or timestamp(wall),
        qosClass=status.qosClass or qos_class(pod),
        observedGeneration=status.observedGeneration or pod.metadata.generation,
    )


def _conditions(pod: Pod, status: PodStatus, before: PodStatus | None, wall: float) -> tuple[PodCondition, ...]:
    inits, mains = status.initContainerStatuses, status.containerStatuses
    if len(inits) != len(pod.spec.initContainers):
        # A provider may not speak of them at all.
        pod = msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, initContainers=()))
        inits = ()
    nothing_seen = ObservedPod(pod.uid, pod.metadata.namespace, pod.metadata.name)
    made = conditions(pod, nothing_seen, status.phase, inits, mains, before, wall)
    return tuple(one for one in made if one.type != _OF_A_SANDBOX)
