"""What a policy is: an annotation, how its value is read, and what is said of a value that cannot be taken.

A leaf of its package; the policies themselves have a module each and are listed in `agent.policies.table`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

_LOGIN = re.compile("//.*@")


def never(value: object) -> bool:  # noqa: ARG001
    """No value of this policy gives power over the host."""
    return False


class Policy(msgspec.Struct, frozen=True):
    annotation: str
    field: str
    """Of `agent.policies.pod.Policies`."""
    parse: Callable[[str], object]
    """Raises ValueError with a reason of one line."""
    power: Callable[[object], bool] = never
    """Whether this value gives power over the host: then the node's settings have to allow it to the namespace."""


class Fault(msgspec.Struct, frozen=True):
    """An annotation that counts for nothing, and why: the default holds in its place."""

    annotation: str
    value: str
    why: str

    def __str__(self) -> str:
        return f"annotation {self.annotation}={shown(self.value)!r} does not count: {self.why}"


def shown(value: str) -> str:
    """For messages, which more people read than the annotation: without what a URL has before its host."""
    return _LOGIN.sub("//", value)
