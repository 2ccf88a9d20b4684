"""Flags that virtual-kubelet's users have in their manifests and that set nothing here.

In: the flags as they were given. Out: nothing, or a ConfigError of one line that says what to use instead. A value that
asks for what the agent does anyway is taken.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agent.errors import ConfigError


class FormerFlag(msgspec.Struct, frozen=True):
    """`flag` has no dashes in front; `taken` are values, in lower case, that change nothing."""

    flag: str
    instead: str
    taken: frozenset[str] = frozenset()
    switch: bool = False

    @property
    def field(self) -> str:
        return "former_" + self.flag.replace("-", "_")


FORMER_FLAGS = (
    FormerFlag(
        "enable-node-lease",
        "the Node's lease is always renewed, leave the flag out",
        frozenset({"true", "t", "1"}),
        switch=True,
    ),
    FormerFlag(
        "os", "a Node of edgelet's is Linux; a provider may say otherwise in configure_node", frozenset({"linux"})
    ),
    FormerFlag(
        "pod-sync-workers",
        "every pod has a worker of its own, leave the flag out; --parallel-starts limits starts in containerd",
    ),
    FormerFlag(
        "startup-timeout",
        "the agent waits as long as it takes and runs the pods that it knows meanwhile, leave the flag out",
    ),
    FormerFlag("metrics-addr", "metrics and stats are on the node's API, use --address and --port"),
    FormerFlag("trace-exporter", "there are no traces, use --log-format json with --log-level debug"),
)


def refuse(given: Mapping[str, object]) -> None:
    """`given`: by field, None where a flag is absent. Raises ConfigError for the first that asks for something."""
    for former in FORMER_FLAGS:
        value = given.get(former.field)
        if value is not None and str(value).lower() not in former.taken:
            raise ConfigError(f"--{former.flag}: {former.instead}")
