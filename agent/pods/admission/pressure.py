"""A node that runs short takes fewer pods: best-effort ones not while memory is short, nearly none for anything else.

In: a pod that has just come, what it claims, and the Node's conditions of pressure. Out: why it is not taken, or None.
Pure. Source: the Kubernetes page "Node-pressure Eviction"; the words are the kubelet's.
"""

from __future__ import annotations

from agent.model.node import NodeTaint
from agent.model.pod import Pod
from agent.pods.admission.claim import Claim
from agent.pods.admission.rules import Rejection
from agent.pods.admission.selectors import tolerates
from agent.pods.qos import QosClass

EVICTED = "Evicted"
MEMORY_PRESSURE = "MemoryPressure"
_TAINT = NodeTaint(key="node.kubernetes.io/memory-pressure", effect="NoSchedule")


def under_pressure(pod: Pod, wanted: Claim, conditions: tuple[str, ...]) -> Rejection | None:
    """`conditions` are those of the Node that are true."""
    if not conditions or wanted.critical:
        return None
    only_memory = conditions == (MEMORY_PRESSURE,)
    if only_memory and (wanted.qos is not QosClass.BEST_EFFORT or tolerates(pod.spec.tolerations, _TAINT)):
        return None
    return Rejection(EVICTED, f"The node had condition: [{' '.join(conditions)}]. ")
