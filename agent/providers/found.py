"""A pod that is only in the runtime, or only on disk: enough of a record to end it well.

In: what was observed by our labels, or the name of a folder. Out: a PodRecord with names and UID, containers by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import msgspec

from agent.model.container import Container, ResourceRequirements
from agent.model.meta import ObjectMeta, Quantity
from agent.model.observed import ObservedPod
from agent.model.pod import Pod, PodSpec
from agent.model.record import Origin, PodRecord
from agent.pods.qos import QosClass

_SOME: dict[str, Quantity] = {"cpu": "1m", "memory": "1"}
_OF_CLASS = {
    QosClass.GUARANTEED: ResourceRequirements(requests=_SOME, limits=_SOME),
    QosClass.BURSTABLE: ResourceRequirements(requests=_SOME),
    QosClass.BEST_EFFORT: ResourceRequirements(),
}


def found_record(observed: ObservedPod) -> PodRecord:
    names = dict.fromkeys(c.name for c in observed.containers)
    pod = Pod(
        metadata=ObjectMeta(name=observed.name, namespace=observed.namespace, uid=observed.uid),
        spec=PodSpec(containers=tuple(Container(name=name) for name in names)),
    )
    return PodRecord(pod, msgspec.json.encode(pod))


def left_record(uid: str, names: tuple[str, str] | None = None, qos: QosClass | None = None) -> PodRecord:
    """Of a pod of which only traces are left. Not the API's: nobody there knows it any more.

    `names` (namespace, name) are what its logs say of it, `qos` what its cgroup says.
    """
    namespace, name = names or ("default", uid)
    spec = PodSpec() if qos is None else PodSpec(containers=(Container(name="unknown", resources=_OF_CLASS[qos]),))
    pod = Pod(metadata=ObjectMeta(name=name, namespace=namespace, uid=uid), spec=spec)
    return PodRecord(pod, msgspec.json.encode(pod), Origin.FILE)


def without(observed: Mapping[str, ObservedPod], uids: Set[str]) -> dict[str, ObservedPod]:
    return {uid: pod for uid, pod in observed.items() if uid not in uids}
