"""Does a node match what a pod selects and tolerates: nodeSelector, required node affinity, tolerations.

In: the pod's terms and the node's labels and taints. Out: yes or no. A term that cannot be read matches nothing.
Source: the Kubernetes pages "Assigning Pods to Nodes" and "Taints and Tolerations".
"""

from __future__ import annotations

from agent.model.affinity import Affinity, NodeSelector, NodeSelectorTerm, Toleration
from agent.model.node import NodeFacts, NodeTaint
from agent.model.pod import PodSpec


def matches_node(spec: PodSpec, node: NodeFacts) -> bool:
    """nodeSelector and required affinity: both must hold; of the affinity's terms any one is enough."""
    if any(node.labels.get(name) != value for name, value in (spec.nodeSelector or {}).items()):
        return False
    required = _required(spec.affinity)
    return required is None or selects(required, node)


def selects(required: NodeSelector, node: NodeFacts) -> bool:
    """Any one of the terms is enough; none selects no node."""
    return any(_term_matches(term, node) for term in required.nodeSelectorTerms)


def tolerates(tolerations: tuple[Toleration, ...], taint: NodeTaint) -> bool:
    return any(_covers(toleration, taint) for toleration in tolerations)


def _required(affinity: Affinity | None) -> NodeSelector | None:
    if affinity is None or affinity.nodeAffinity is None:
        return None
    return affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution


def _term_matches(term: NodeSelectorTerm, node: NodeFacts) -> bool:
    """An empty term selects no node."""
    if not term.matchExpressions and not term.matchFields:
        return False
    fields = {"metadata.name": node.name}
    return all(r.holds(node.labels) for r in term.matchExpressions) and all(
        r.operator in ("In", "NotIn") and len(r.values) == 1 and r.holds(fields) for r in term.matchFields
    )


def _covers(toleration: Toleration, taint: NodeTaint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    match toleration.operator or "Equal":
        case "Equal":
            return toleration.value == taint.value
        case "Exists":
            return True
        case _:
            # Lt and Gt are an alpha feature, off by default.
            return False
