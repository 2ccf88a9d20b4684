"""Ephemeral containers that this node does not run: they come to a pod that runs, which goes on without them.

In: the pod as it came. Out: refusals, for the pod's owner to read and for the containers' status. No I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from agent.pods.knowledge import Failure
from agent.pods.support import Refusal, unsupported

FIELD = "spec.ephemeralContainers"
OF_THE_HOST = Refusal(FIELD, "a pod of host programs takes no more containers once it is made")


def refused_ephemeral(raw_pod: Mapping[str, Any]) -> dict[str, Failure]:
    """By container name: what it asks and cannot have, so that it is never started."""
    found: dict[str, list[str]] = {}
    named = [one.get("name", "") for one in (raw_pod.get("spec") or {}).get("ephemeralContainers") or ()]
    for refusal in unsupported(raw_pod):
        if is_of_ephemeral(refusal):
            index, _, _ = refusal.path.removeprefix(f"{FIELD}[").partition("]")
            found.setdefault(named[int(index)], []).append(str(refusal))
    return {name: Failure("UnsupportedField", "; ".join(whys), math.inf) for name, whys in found.items()}


def is_of_ephemeral(refusal: Refusal) -> bool:
    return refusal.path.startswith(f"{FIELD}[")
