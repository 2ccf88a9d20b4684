"""A pod that is only in the runtime, or only on disk: enough of a record to end it well.

In: what was observed by our labels, or the name of a folder. Out: a PodRecord with names and UID, containers by name.
"""

from __future__ import annotations

import msgspec

from agent.model.container import Container
from agent.model.meta import ObjectMeta
from agent.model.observed import ObservedPod
from agent.model.pod import Pod, PodSpec
from agent.model.record import Origin, PodRecord


def found_record(observed: ObservedPod) -> PodRecord:
    names = dict.fromkeys(c.name for c in observed.containers)
    pod = Pod(
        metadata=ObjectMeta(name=observed.name, namespace=observed.namespace, uid=observed.uid),
        spec=PodSpec(containers=tuple(Container(name=name) for name in names)),
    )
    return PodRecord(pod, msgspec.json.encode(pod))


def left_record(uid: str) -> PodRecord:
    """Of a pod of which nothing but its folder is left. Not the API's: nobody there knows the name it had."""
    pod = Pod(metadata=ObjectMeta(name=uid, namespace="default", uid=uid), spec=PodSpec())
    return PodRecord(pod, msgspec.json.encode(pod), Origin.FILE)
