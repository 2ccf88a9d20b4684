"""`edgelet.io/restart-on-disk`: how full a container may write its disk before it is started anew. Pure."""

from __future__ import annotations

from agent.option_values import whole
from agent.policies.policy import Policy

_percent = whole(0, 100)


def parse(value: str) -> int | None:
    """Percent; `0` is None: never. Raises ValueError."""
    return _percent(value.strip().removesuffix("%")) or None


RESTART_ON_DISK = Policy("edgelet.io/restart-on-disk", "restart_on_disk", parse)
