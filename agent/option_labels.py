"""The forms of a node's labels and taints, as settings give them.

In: text, or a YAML list or mapping. Out: the value as Settings has it; a wrong one raises ValueError with the rest of a
line that starts with the setting's name. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent.config import Taint
from agent.option_values import is_subdomain, items, pair, text

_LABEL_WORD = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_TAINT = re.compile(r"(?P<key>[^=:]+)(?:=(?P<value>[^:]*))?(?::(?P<effect>.*))?")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")

# What the NodeRestriction admission lets a node say about itself in the namespaces kubernetes.io and k8s.io.
_OWN_LABELS = frozenset(
    {
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "kubernetes.io/arch",
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    }
)
_OWN_NAMESPACES = ("kubelet.kubernetes.io", "node.kubernetes.io")
_RESERVED_NAMESPACES = ("kubernetes.io", "k8s.io")


def labels(value: object) -> dict[str, str]:
    """`a=b,c=d`, or a mapping. Labels that the API server would not let a node set on itself are refused here."""
    found: dict[str, str] = {}
    if isinstance(value, Mapping):
        pairs = [(text(key), text(word)) for key, word in value.items()]
    else:
        pairs = [pair(text(item)) for item in items(value)]
    for key, word in pairs:
        _check_label(key, word)
        if reserved_label(key):
            raise ValueError(
                f"label {key!r} is reserved: below kubernetes.io and k8s.io a node may only name itself with"
                f" {' or '.join(f'{name}/…' for name in _OWN_NAMESPACES)} and the well-known labels"
            )
        found[key] = word
    return found


def reserved_label(key: str) -> bool:
    """A node may not set this label on itself. Source: the NodeRestriction admission controller's page."""
    namespace, slash, _ = key.partition("/")
    if not slash or not _within(namespace, _RESERVED_NAMESPACES):
        return False
    return key not in _OWN_LABELS and not _within(namespace, _OWN_NAMESPACES)


def taints(value: object) -> tuple[Taint, ...]:
    """`key=value:Effect,…`, or a list of those or of mappings with key, value and effect."""
    found = tuple(_taint(item) for item in items(value))
    for one in found:
        if not one.effect:
            raise ValueError(f"taint {one.key!r} has no effect: write key=value:{'|'.join(_EFFECTS)}")
    seen = [(one.key, one.effect) for one in found]
    for twice in seen:
        if seen.count(twice) > 1:
            raise ValueError(f"taint {twice[0]}:{twice[1]} is there twice")
    return found


def provider_taint(value: object) -> Taint:
    """A taint, or just its key (virtual-kubelet's form): then value and effect are empty and filled in later."""
    return _taint(value)


def effect(value: object) -> str:
    if value not in _EFFECTS:
        raise ValueError(f"{value!r} is none of {', '.join(_EFFECTS)}")
    return str(value)


def _check_label(key: str, word: str) -> None:
    prefix, slash, name = key.rpartition("/")
    if (slash and not is_subdomain(prefix)) or len(name) > 63 or not _LABEL_WORD.fullmatch(name):
        raise ValueError(f"{key!r} is no label key")
    if word and (len(word) > 63 or not _LABEL_WORD.fullmatch(word)):
        raise ValueError(f"label {key!r} cannot have the value {word!r}")


def _taint(item: object) -> Taint:
    if isinstance(item, Mapping):
        if unknown := sorted(str(key) for key in item.keys() - {"key", "value", "effect"}):
            raise ValueError(f"a taint has no {unknown[0]!r}: it has key, value and effect")
        found = Taint(text(item.get("key", "")), text(item.get("value", "")), text(item.get("effect", "")))
    else:
        match = _TAINT.fullmatch(text(item))
        if match is None:
            raise ValueError(f"{item!r} is not written key=value:Effect")
        found = Taint(match["key"], match["value"] or "", match["effect"] or "")
        if (match["value"] is not None or match["effect"] is not None) and not found.effect:
            raise ValueError(f"taint {item!r} has no effect: write key=value:{'|'.join(_EFFECTS)}")
    _check_label(found.key, found.value)
    if found.effect:
        effect(found.effect)
    return found


def _within(namespace: str, parents: tuple[str, ...]) -> bool:
    return any(namespace == parent or namespace.endswith(f".{parent}") for parent in parents)
