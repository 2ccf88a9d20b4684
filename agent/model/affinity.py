"""What a pod asks of the node it runs on: required node affinity and tolerations.

Of an affinity only what a node judges by itself is typed; preferences and affinity to other pods are the scheduler's.
Source of names: the Kubernetes API reference, core/v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.model.meta import K8sStruct


class NodeSelectorRequirement(K8sStruct, frozen=True):
    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Of labels, or of other fields by name. What cannot be read holds of nothing."""
        found = labels.get(self.key)
        match self.operator:
            case "In":
                return found in self.values
            case "NotIn":
                return bool(self.values) and found not in self.values
            case "Exists":
                return found is not None and not self.values
            case "DoesNotExist":
                return found is None and not self.values
            case "Gt" | "Lt" if len(self.values) == 1:
                own, than = _integer(found), _integer(self.values[0])
                if own is None or than is None:
                    return False
                return own > than if self.operator == "Gt" else own < than
            case _:
                return False


class NodeSelectorTerm(K8sStruct, frozen=True):
    matchExpressions: tuple[NodeSelectorRequirement, ...] = ()
    matchFields: tuple[NodeSelectorRequirement, ...] = ()


class NodeSelector(K8sStruct, frozen=True):
    nodeSelectorTerms: tuple[NodeSelectorTerm, ...] = ()


class NodeAffinity(K8sStruct, frozen=True):
    requiredDuringSchedulingIgnoredDuringExecution: NodeSelector | None = None
    preferredDuringSchedulingIgnoredDuringExecution: Any = None


class Affinity(K8sStruct, frozen=True):
    nodeAffinity: NodeAffinity | None = None
    podAffinity: Any = None
    podAntiAffinity: Any = None


class Toleration(K8sStruct, frozen=True):
    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    tolerationSeconds: int | None = None


def _integer(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
