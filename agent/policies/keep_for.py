"""`edgelet.io/keep-for`: how long what is left of a pod stays on the node once the pod has ended. Pure."""

from __future__ import annotations

from agent.option_garbage import age
from agent.policies.policy import Policy


def parse(value: str) -> float | None:
    """Seconds; `0` is None: it is not kept for that. Raises ValueError."""
    return age(value.strip()) or None


KEEP_FOR = Policy("edgelet.io/keep-for", "keep_for", parse)
