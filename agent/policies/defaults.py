"""Defaults of policies: rules of the cluster's ConfigMap `kube-system/edgelet-defaults`, and the node's settings.

In: the ConfigMap's data, each key a list of rules in YAML, keys in the order of their names. Out: the rules that can be
used, and one line for whatever cannot: a broken rule or value is left out, and the rest holds. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from agent.model.meta import K8sStruct
from agent.model.pod import Pod
from agent.policies.label_selector import EVERYTHING, LabelSelector
from agent.policies.policy import Fault
from agent.policies.table import BY_ANNOTATION


class _Rule(K8sStruct, frozen=True, forbid_unknown_fields=True):
    """As it is written."""

    annotations: dict[str, str | int | float | bool]
    namespaces: tuple[str, ...] | None = None
    podSelector: LabelSelector = EVERYTHING
    nodeSelector: LabelSelector = EVERYTHING


class Rule(msgspec.Struct, frozen=True):
    """What it says holds for pods that match all of the rest."""

    annotations: Mapping[str, str]
    namespaces: frozenset[str] | None = None
    """None: pods of every namespace."""
    pods: LabelSelector = EVERYTHING
    nodes: LabelSelector = EVERYTHING

    def matches(self, pod: Pod) -> bool:
        meta = pod.metadata
        return (self.namespaces is None or meta.namespace in self.namespaces) and self.pods.matches(meta.labels or {})


class Defaults(msgspec.Struct, frozen=True):
    """What holds on this node for pods that say nothing themselves."""

    rules: tuple[Rule, ...] = ()
    """Those that are about this node."""
    settings: Mapping[str, str] = msgspec.field(default_factory=dict)
    """By annotation."""

    def ruled(self, annotation: str, pod: Pod) -> str | None:
        """Of the first rule that names the annotation and matches."""
        return next(
            (r.annotations[annotation] for r in self.rules if annotation in r.annotations and r.matches(pod)), None
        )


NO_DEFAULTS = Defaults()


def read_rules(data: Mapping[str, str]) -> tuple[tuple[Rule, ...], tuple[str, ...]]:
    """The rules of all keys, and the faults, each one line that names the key, and the annotation with its value."""
    rules: list[Rule] = []
    faults: list[str] = []
    for key in sorted(data):
        for found in _rules_of(key, data[key]):
            if isinstance(found, Rule):
                rules.append(found)
            else:
                faults.append(found)
    return tuple(rules), tuple(faults)


def _rules_of(key: str, text: str) -> Iterator[Rule | str]:
    import yaml  # only a node whose cluster has such rules pays for it

    try:
        written = yaml.safe_load(text)
    except yaml.YAMLError as error:
        yield f"{key}: not YAML: {' '.join(str(error).split())}"
        return
    if written is None:
        return
    if not isinstance(written, list):
        yield f"{key}: not a list of rules"
        return
    for number, one in enumerate(written, 1):
        where = f"{key}, rule {number}"
        try:
            rule = msgspec.convert(one, _Rule)
        except msgspec.ValidationError as error:
            yield f"{where}: {error}"
            continue
        if trouble := rule.podSelector.trouble() or rule.nodeSelector.trouble():
            yield f"{where}: {trouble}"
            continue
        good: dict[str, str] = {}
        for name, value in rule.annotations.items():
            if (fault := _fault(name, str(value))) is not None:
                yield f"{where}: {fault}"
            else:
                good[name] = str(value)
        yield Rule(
            good, None if rule.namespaces is None else frozenset(rule.namespaces), rule.podSelector, rule.nodeSelector
        )


def _fault(name: str, value: str) -> Fault | None:
    try:
        check(name, value)
    except ValueError as error:
        return Fault(name, value, str(error))
    return None


def check(annotation: str, value: str) -> None:
    """Raises ValueError: there is no such policy, or the value cannot be read."""
    if (policy := BY_ANNOTATION.get(annotation)) is None:
        raise ValueError(f"there is no such policy, only {', '.join(BY_ANNOTATION)}")
    policy.parse(value)
