"""What makes a pod one of host programs ("scripts"), and that this is settled for good when the pod is first recorded.

In: pods and records. Out: yes or no, and records that keep what they were. A pod is scripts as a whole or not at all:
only the pod's own annotations count. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from agent.model.pod import Pod
from agent.model.record import PodRecord

HOST_IMAGE: Final = "edgelet.io/host:latest"
"""The name of the empty image that such containers run on."""
KIND_IS_SETTLED: Final = (
    "The pod stays what it was when this node first had it: its annotations decide no more whether it runs on the host"
)
_SEED: Final = "type"
_HOST: Final = "edgelet.io/host"


def is_scripts(pod: Pod) -> bool:
    annotations = pod.metadata.annotations or {}
    return annotations.get(_SEED) == "bash" or annotations.get(_HOST) == "true"


def settled(now: PodRecord, was: PodRecord) -> PodRecord:
    """`now` as a later state of the same pod: its annotations cannot make scripts of it, nor make it none."""
    if is_scripts(now.pod) == is_scripts(was.pod):
        return now
    known = was.pod.metadata.annotations or {}
    raw = msgspec.json.decode(now.raw)
    raw["metadata"]["annotations"] = _kept(raw["metadata"].get("annotations") or {}, known)
    meta = msgspec.structs.replace(now.pod.metadata, annotations=_kept(now.pod.metadata.annotations or {}, known))
    pod = msgspec.structs.replace(now.pod, metadata=meta)
    return PodRecord(pod, msgspec.json.encode(raw), now.origin, kind_change_refused=True)


def _kept(now: Mapping[str, str], was: Mapping[str, str]) -> dict[str, str]:
    ours = (_SEED, _HOST)
    rest = {key: value for key, value in now.items() if key not in ours}
    return {**rest, **{key: was[key] for key in ours if key in was}}
