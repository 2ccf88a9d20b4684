"""A LabelSelector of the Kubernetes API, and whether labels match it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from agent.model.affinity import NodeSelectorRequirement
from agent.model.meta import K8sStruct

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


class LabelSelector(K8sStruct, frozen=True, forbid_unknown_fields=True):
    """Everything in it must hold; an empty one matches everything."""

    matchLabels: dict[str, str] = {}
    matchExpressions: tuple[NodeSelectorRequirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(name) == value for name, value in self.matchLabels.items()) and all(
            one.holds(labels) for one in self.matchExpressions
        )

    def trouble(self) -> str:
        """What the API server would refuse in it; empty: nothing."""
        for one in self.matchExpressions:
            if one.operator not in _OPERATORS:
                return f"operator {one.operator!r} is none of {', '.join(_OPERATORS)}"
            if bool(one.values) is not (one.operator in ("In", "NotIn")):
                return f"{one.operator} of {one.key!r} has {'values' if one.values else 'no values'}"
        return ""


EVERYTHING = LabelSelector()
