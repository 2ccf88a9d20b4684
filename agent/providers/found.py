"""Pods that nobody has named yet, and those that are only in the runtime or on disk.

In: what was observed by our labels, or the name of a folder. Out: of each pod enough of a record to end it well: names
and UID, containers by name. A desired pod is named soon after the start; one that stays here is an orphan.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agent.model.container import Container, ResourceRequirements
from agent.model.meta import ObjectMeta, Quantity
from agent.model.observed import ObservedPod
from agent.model.pod import Pod, PodSpec
from agent.model.record import Origin, PodRecord
from agent.pods.admission.gate import Gate
from agent.pods.garbage.kept import KeptPods
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


class FoundPods:
    """None of them has a worker, and none is kept for people to look at."""

    def __init__(self, workers: Mapping[str, object], gate: Gate, kept: KeptPods) -> None:
        """`workers`: by UID, as they are whenever something is asked here."""
        self._workers = workers
        self._gate = gate
        self._kept = kept
        self._found: dict[str, PodRecord] = {}

    def of_ours(self, observed: Mapping[str, ObservedPod]) -> dict[str, ObservedPod]:
        """What was observed, without the kept pods whose object is gone."""
        gone = self._kept.gone
        return {uid: pod for uid, pod in observed.items() if uid not in gone}

    def take_over(self, observed: Mapping[str, ObservedPod]) -> None:
        """This is what the runtime has now."""
        ours = self.of_ours(observed)
        self._found = {uid: found_record(pod) for uid, pod in ours.items() if uid not in self._workers}

    def named(self, uid: str) -> None:
        """The pod has a worker from now on."""
        self._found.pop(uid, None)

    def of_name(self, record: PodRecord) -> list[PodRecord]:
        """What the runtime has under this pod's name from before, and no source knows any more."""
        meta = record.pod.metadata
        found = [(other, other.pod.metadata) for uid, other in self._found.items() if uid != record.uid]
        return [other for other, was in found if (was.namespace, was.name) == (meta.namespace, meta.name)]

    def records(self) -> tuple[PodRecord, ...]:
        """Also of pods that the node took in and of which the runtime has nothing."""
        return (*self._found.values(), *(found_record(pod) for pod in self._decided()))

    def known(self) -> set[str]:
        """UIDs of all pods that somebody answers for: traces of any other are leftovers."""
        return {*self._workers, *self._found, *self._kept.gone, *(pod.uid for pod in self._decided())}

    def _decided(self) -> tuple[ObservedPod, ...]:
        return tuple(self._gate.unnamed({**self._workers, **self._found}))
