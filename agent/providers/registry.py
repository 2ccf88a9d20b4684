"""Find a provider by name: entry points of the group `edgelet.providers`, and `module:Class`.

In: the name. Out: a class that makes a Provider. A wrong name is a one-line ConfigError that lists the right ones.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

from agent.errors import ConfigError

GROUP = "edgelet.providers"
ALIASES = {"mynode": "containerd", "example-provider": "containerd"}
"""Older names of the containerd provider."""


def names() -> tuple[str, ...]:
    """The installed providers' names, sorted."""
    return tuple(sorted({"containerd", *(entry.name for entry in entry_points(group=GROUP))}))


def find(name: str) -> type:
    """The provider class of that name. Raises ConfigError."""
    name = ALIASES.get(name, name)
    if name == "containerd":
        # Our own is found without its package's metadata: a source checkout has none.
        name = "agent.providers.containerd:ContainerdProvider"
    if ":" not in name:
        found = [entry for entry in entry_points(group=GROUP) if entry.name == name]
        if not found:
            raise ConfigError(f"--provider: no provider {name!r}; there are: {', '.join(names())}")
        name = found[0].value
    module, _, attribute = name.partition(":")
    try:
        provider = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        # The last two: an empty or a relative module name.
        raise ConfigError(f"--provider: cannot load {name!r}: {error}") from error
    if not isinstance(provider, type):
        raise ConfigError(f"--provider: {name!r} is not a class")
    return provider
