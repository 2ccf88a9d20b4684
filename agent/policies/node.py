"""What annotations of the Node say about this machine: thresholds of evictions and of images, and images to have here.

In: the Node's annotations and the settings. Out: a value by policy, which stands over the setting of its name, and a
fault for each that is wrong: there the setting holds. Pure. A value is written as the setting's flag has it, and as
there it replaces all of the default. Who may write annotations of a Node: admins of the cluster, and the node itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from agent import option_eviction, option_garbage
from agent import option_values as form
from agent.config import Settings
from agent.errors import ConfigError
from agent.model import quantity
from agent.policies.policy import Fault, Policy

_IMAGE = re.compile(r"[A-Za-z0-9][\w.:/@+-]*", re.ASCII)


class NodePolicies(msgspec.Struct, frozen=True):
    """None: the annotation is not there, or wrong."""

    eviction_hard: Mapping[str, str] | None = None
    eviction_soft: Mapping[str, str] | None = None
    eviction_soft_grace_period: Mapping[str, float] | None = None
    """Seconds by signal."""
    eviction_minimum_reclaim: Mapping[str, str] | None = None
    image_gc_high_threshold: int | None = None
    """Percent."""
    image_gc_low_threshold: int | None = None
    minimum_image_ttl_duration: float | None = None
    """Seconds."""
    prefetch: tuple[str, ...] | None = None
    """Names of images, as they were written."""

    def over(self, settings: Settings) -> Settings:
        """The settings as they hold under these policies."""
        said: dict[str, Any] = {name: getattr(self, name) for name in _OVER}
        return replace(settings, **{name: value for name, value in said.items() if value is not None})


def images(text: str) -> tuple[str, ...]:
    """Names with commas, blanks or new lines between; each once. Raises ValueError."""
    found = tuple(dict.fromkeys(re.split(r"[\s,]+", text.strip(" \t\r\n,"))))
    for one in found:
        if one and not _IMAGE.fullmatch(one):
            raise ValueError(f"{one!r} is no image")
    return tuple(one for one in found if one)


NODE_POLICIES: tuple[Policy, ...] = (
    Policy("edgelet.io/eviction-hard", "eviction_hard", option_eviction.thresholds),
    Policy("edgelet.io/eviction-soft", "eviction_soft", option_eviction.thresholds),
    Policy("edgelet.io/eviction-soft-grace-period", "eviction_soft_grace_period", option_eviction.grace_periods),
    Policy("edgelet.io/eviction-minimum-reclaim", "eviction_minimum_reclaim", option_eviction.minimum_reclaims),
    Policy("edgelet.io/image-gc-high-threshold", "image_gc_high_threshold", form.whole(0, 100)),
    Policy("edgelet.io/image-gc-low-threshold", "image_gc_low_threshold", form.whole(0, 100)),
    Policy("edgelet.io/minimum-image-ttl", "minimum_image_ttl_duration", option_garbage.age),
    Policy("edgelet.io/prefetch", "prefetch", images),
)
ANNOTATIONS = frozenset(policy.annotation for policy in NODE_POLICIES)
_OVER = tuple(policy.field for policy in NODE_POLICIES if policy.field != "prefetch")
"""Fields of Settings too."""
_TOGETHER: tuple[tuple[Callable[[Settings], None], frozenset[str]], ...] = (
    (option_eviction.check, frozenset(("eviction_soft", "eviction_soft_grace_period"))),
    (
        option_garbage.check,
        frozenset(("image_gc_high_threshold", "image_gc_low_threshold", "minimum_image_ttl_duration")),
    ),
)
"""Settings that ask something of each other: where that is not so under the policies, none of these policies holds."""


def node_policies(
    annotations: Mapping[str, str], settings: Settings, sizes: Mapping[str, int] | None = None
) -> tuple[NodePolicies, tuple[Fault, ...]]:
    """`sizes`: how much the machine has, in bytes by signal: a threshold of as much would end every pod."""
    values: dict[str, object] = {}
    faults = []
    for policy in NODE_POLICIES:
        if (written := annotations.get(policy.annotation)) is None:
            continue
        try:
            values[policy.field] = value = policy.parse(written)
            if policy.field in ("eviction_hard", "eviction_soft"):
                _check_sizes(value, sizes or {})
        except ValueError as error:
            values.pop(policy.field, None)
            faults.append(Fault(policy.annotation, written, str(error)))
    for check, names in _TOGETHER:
        given = {name: value for name, value in values.items() if name in names}
        try:
            check(NodePolicies(**given).over(settings))  # type: ignore[arg-type]
        except ConfigError as error:
            for policy in NODE_POLICIES:
                if policy.field in given:
                    faults.append(Fault(policy.annotation, annotations[policy.annotation], str(error)))
                    del values[policy.field]
    return NodePolicies(**values), tuple(faults)  # type: ignore[arg-type]


def _check_sizes(thresholds: Any, sizes: Mapping[str, int]) -> None:
    """Raises ValueError."""
    for signal, amount in thresholds.items():
        size = sizes.get(signal)
        if size is not None and not amount.endswith("%") and quantity.parse(amount) >= size:
            raise ValueError(f"{signal}<{amount}: the machine has no more than {size >> 20}Mi")
