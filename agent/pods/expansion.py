"""`$(VAR)` references in command, args, env values and subPathExpr, as the Kubernetes API defines them.

In: a text and a way to look a name up. Out: the text with every known reference replaced. `$$` stands for one `$`
and protects what follows; a reference to an unknown name, and a `$` that starts nothing, stay as written.
Source: the API reference, Container.command.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# One left-to-right pass: an escaped `$` is consumed before it can open a reference, so `$$(X)` gives `$(X)`.
_TOKEN = re.compile(r"\$\$|\$\(([^)]*)\)")


def expand(text: str, *scopes: Mapping[str, str]) -> str:
    """`text` with references replaced from the first scope that knows the name. Replaced values are not read again."""

    def replacement(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return "$"
        for scope in scopes:
            if name in scope:
                return scope[name]
        return match.group(0)

    return _TOKEN.sub(replacement, text)


def references(text: str) -> tuple[str, ...]:
    """The names that `text` refers to, in order, each once."""
    return tuple(dict.fromkeys(m.group(1) for m in _TOKEN.finditer(text) if m.group(1) is not None))
