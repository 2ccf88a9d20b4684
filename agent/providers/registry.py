"""Find a provider by name: entry points of the group `edgelet.providers`, and `module:Class`; and see what it can do.

In: the name. Out: a class that has every required method of the contract. A wrong name, a class that cannot be loaded
and a missing method are one-line ConfigErrors; the first lists the right names.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

import msgspec

from agent.errors import ConfigError
from agent.providers import contract, streaming

GROUP = "edgelet.providers"
OWN = {
    "containerd": "agent.providers.containerd:ContainerdProvider",
    "mock": "agent.providers.mock:MockProvider",
}
"""Found without our package's metadata: a source checkout has none."""
PARTS: tuple[type, ...] = (
    contract.NotifiesPods,
    contract.ReadsLogs,
    streaming.RunsInContainer,
    streaming.RunsToEnd,
    streaming.AttachesToContainer,
    streaming.ForwardsPorts,
    streaming.StreamsByUrl,
    contract.ReadsStats,
    contract.ReadsMetrics,
    contract.Pings,
    contract.TellsHealth,
    contract.NotifiesNodeStatus,
    contract.ConfiguresNode,
    contract.HearsOfObjects,
    contract.LetsEvict,
    contract.EndsPods,
    contract.HearsOfNode,
    contract.HearsOfLink,
    contract.Runs,
)
"""Everything optional."""


class Installed(msgspec.Struct, frozen=True):
    """One row of `edgelet providers`."""

    name: str
    source: str
    """module:Class"""
    parts: tuple[str, ...]
    """Methods of the optional parts that it has."""
    fault: str = ""
    """Why it cannot be used, empty where it can."""


def installed() -> Iterator[Installed]:
    """Every provider that can be named, sorted; one that cannot be used says why."""
    for name, source in sorted(_known().items()):
        try:
            yield Installed(name, source, optional_methods(find(name)))
        except ConfigError as error:
            yield Installed(name, source, (), str(error).removeprefix("--provider: "))


def find(name: str) -> type:
    """The provider class of that name, with every required method. Raises ConfigError."""
    source = name if ":" in name else OWN.get(name) or _installed_as(name)
    module, _, attribute = source.partition(":")
    try:
        provider = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError, SyntaxError) as error:
        # The middle two: an empty or a relative module name.
        raise ConfigError(f"--provider: cannot load {source!r}: {error}") from error
    if not isinstance(provider, type):
        raise ConfigError(f"--provider: {source!r} is not a class")
    _check(source, provider)
    return provider


def make(context: contract.ProviderContext) -> contract.Provider:
    """The provider that the settings name. Raises ConfigError, also where its own config file cannot be read."""
    if (file := context.config_file) is not None:
        try:
            file.open("rb").close()
        except OSError as error:
            raise ConfigError(f"--provider-config {file}: {error.strerror}") from error
    made: contract.Provider = find(context.settings.provider)(context)
    return made


def optional_methods(provider: type) -> tuple[str, ...]:
    return tuple(
        method
        for part in PARTS
        if all(hasattr(provider, method) for method in _methods(part))
        for method in _methods(part)
    )


def _installed_as(name: str) -> str:
    known = _known()
    if name not in known:
        raise ConfigError(f"--provider: no provider {name!r}; there are: {', '.join(sorted(known))}")
    return known[name]


def _known() -> dict[str, str]:
    from importlib.metadata import entry_points  # with what it imports a thirtieth of a start

    return {**{entry.name: entry.value for entry in entry_points(group=GROUP)}, **OWN}


def _check(source: str, provider: type) -> None:
    """Said at the start, in one line, instead of in a traceback with the first pod."""
    for method in _methods(contract.Provider):
        made = getattr(provider, method, None)
        # A class that names the Protocol as its base has the Protocol's empty method.
        if made is None or made is getattr(contract.Provider, method):
            raise ConfigError(f"--provider: {source!r} has no method {method}, which every provider must have")
        if not inspect.iscoroutinefunction(made):
            raise ConfigError(f"--provider: {source!r} has a method {method} that is not async")
    for part in PARTS:
        for method in _methods(part):
            if getattr(provider, method, None) is getattr(part, method):
                raise ConfigError(f"--provider: {source!r} has no method {method}, though {part.__name__} is its base")


def _methods(protocol: type) -> Iterator[str]:
    return (name for name in vars(protocol) if not name.startswith("_"))
