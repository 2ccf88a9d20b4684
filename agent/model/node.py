"""The own Node as far as pods depend on it: its name, labels, taints and what of it pods may have together."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agent.model.meta import K8sStruct, Quantity

HOSTNAME_LABEL = "kubernetes.io/hostname"
OS_LABEL = "kubernetes.io/os"


class NodeTaint(K8sStruct, frozen=True):
    key: str
    effect: str
    value: str = ""


class NodeFacts(msgspec.Struct, frozen=True):
    name: str
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    taints: tuple[NodeTaint, ...] = ()
    allocatable: Mapping[str, Quantity] = msgspec.field(default_factory=dict)
    usual: Mapping[str, Quantity] | None = None
    """Allocatable while nothing of it is withheld for others; None: nothing ever is."""
    """By resource name, `pods` among them; also what others (device plugins) have put there."""
