"""How the settings of policies are written: what holds for pods that say nothing, and who may have power over the host.

In: what a flag or the settings file says. Out: annotations with their values, and namespaces. ValueError is one line.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent import option_values as form
from agent.option import Option
from agent.option_garbage import age


def defaults(value: object) -> dict[str, str]:
    """`edgelet.io/keep-for=30m,…`, or a mapping: only there can a value have a comma in it."""
    from agent.policies.defaults import check  # with it come libraries that the command line alone does without
    from agent.policies.policy import shown

    if isinstance(value, Mapping):
        pairs = [(form.text(name), str(word)) for name, word in value.items()]
    else:
        pairs = [form.pair(form.text(item)) for item in form.items(value)]
    for name, word in pairs:
        try:
            check(name, word)
        except ValueError as error:
            raise ValueError(f"{name}={shown(word)}: {error}") from None
    return dict(pairs)


def namespaces(value: object) -> tuple[str, ...]:
    """Names, or `*` for all of them."""
    found = tuple(form.text(item) for item in form.items(value))
    return found if found == ("*",) else form.namespaces(list(found))


POLICY_OPTIONS: tuple[Option, ...] = (
    Option(
        "policy_default", "policy-default", defaults, "ANNOTATION=VALUE,...",
        "policies (docs/policies.md) of pods that have no such annotation, where the cluster says nothing else",
        many=True, default="none",
    ),
    Option(
        "policy_host_namespaces", "policy-host-namespaces", namespaces, "NAMESPACE,...",
        "namespaces whose pods may have policies that give power over the host; * is all of them", many=True,
        default="none",
    ),
    Option(
        "fixed_ip_retention", "fixed-ip-retention", age, "DURATION",
        "an address that a pod keeps (edgelet.io/fixed-ip) is free once the pod has been away for this long, as 24h",
        default="24h",
    ),
)  # fmt: skip
