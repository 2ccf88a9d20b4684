"""What a pod asks of the node it runs on: required node affinity and tolerations.

Of an affinity only what a node judges by itself is typed; preferences and affinity to other pods are the scheduler's.
Source of names: the Kubernetes API reference, core/v1.
"""

from __future__ import annotations

from typing import Any

from agent.model.meta import K8sStruct


class NodeSelectorRequirement(K8sStruct, frozen=True):
    key: str
    operator: str
    values: tuple[str, ...] = ()


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
