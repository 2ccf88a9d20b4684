"""The forms of what is said about registries: how they are asked, and which names are pulled from elsewhere.

In: text, or a YAML mapping. Out: the value as Settings has it; a wrong one raises ValueError with the rest of a line
that starts with the setting's name. Pure: nobody looks at a file here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent.config import Registry
from agent.option_values import items, pair, text

LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
HOST = re.compile(rf"(?:localhost|{LABEL}(?:\.{LABEL})+|{LABEL}(?=:)|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?", re.ASCII)
"""Of an image's name what counts as its registry: it has a dot or a port, or is localhost."""
_PATH = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*", re.ASCII)


def registries(value: object) -> tuple[Registry, ...]:
    """A mapping by host, or the same as YAML in one line."""
    # Few nodes have any, and the command line alone need not hold what reads them.
    from agent.registry_entries import entries

    return entries(value)


def rewrites(value: object) -> tuple[tuple[str, str], ...]:
    """`docker.io/library=registry.example/hub,...`, or a mapping; a slash at an end says nothing."""
    if isinstance(value, Mapping):
        pairs = [(text(old), text(new)) for old, new in value.items()]
    else:
        pairs = [pair(text(item)) for item in items(value)]
    found: dict[str, str] = {}
    for old, new in pairs:
        prefix = _prefix(old)
        if prefix in found:
            raise ValueError(f"{prefix} is there twice")
        found[prefix] = _prefix(new)
    return tuple(found.items())


def _prefix(written: str) -> str:
    """A registry, or the first parts of a repository after it: what `docker.io/library/` and `quay.io` are."""
    prefix = written.strip().rstrip("/")
    registry, slash, path = prefix.partition("/")
    if not HOST.fullmatch(registry) or (slash and not _PATH.fullmatch(path)):
        raise ValueError(f"{written!r} is no registry, and no beginning of an image's name after its registry")
    return prefix
