"""The small rules that validation is made of: what a name is, and how each kind of fault is told. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from agent.pods.support import Refusal

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")


def is_label(name: str) -> bool:
    """RFC 1123 label, lowercase."""
    return _LABEL.fullmatch(name) is not None


def is_subdomain(name: str) -> bool:
    """RFC 1123 subdomain, lowercase, at most 253 characters."""
    return len(name) <= 253 and _SUBDOMAIN.fullmatch(name) is not None


def required(path: str, why: str = "") -> Refusal:
    return Refusal(path, f"Required value: {why}" if why else "Required value")


def invalid(path: str, value: object, why: str) -> Refusal:
    shown = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return Refusal(path, f"Invalid value: {shown}: {why}")


def one_of(path: str, value: str, known: Iterable[str]) -> Iterator[Refusal]:
    if value not in known:
        names = ", ".join(f'"{name}"' for name in known if name)
        yield Refusal(path, f'Unsupported value: "{value}": must be one of {names}')


def not_negative(path: str, value: int | None) -> Iterator[Refusal]:
    if value is not None and value < 0:
        yield invalid(path, value, "must be greater than or equal to 0")


def duplicates(path: str, field: str, values: Iterable[str], found_before: Iterable[str] = ()) -> Iterator[Refusal]:
    """One for each value that was there before; empty values are other rules' business."""
    seen = set(found_before)
    for index, value in enumerate(values):
        if value and value in seen:
            yield Refusal(f"{path}[{index}].{field}", f'Duplicate value: "{value}"')
        seen.add(value)
