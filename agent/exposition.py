"""Prometheus' text format, as far as a node writes it: families with their HELP and TYPE, samples below.

In: names, labels and numbers. Out: text of version 0.0.4. By hand: a library for it would cost every agent megabytes
for what is one page.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})
_HELP_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n"})


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Exposition:
    """Written from top to bottom: `family`, then its samples. A family without samples leaves nothing."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._head = ""
        self._name = ""

    def family(self, name: str, kind: Kind, about: str) -> None:
        self._name = name
        self._head = f"# HELP {name} {about.translate(_HELP_ESCAPES)}\n# TYPE {name} {kind}"

    def sample(
        self,
        value: float,
        labels: Mapping[str, str] | None = None,
        at_ms: int | None = None,
        suffix: str = "",
    ) -> None:
        """`at_ms`: when it was so, in Unix milliseconds, where that is not now."""
        if self._head:
            self._lines.append(self._head)
            self._head = ""
        inside = ",".join(f'{name}="{text.translate(_ESCAPES)}"' for name, text in labels.items()) if labels else ""
        named = f"{self._name}{suffix}{{{inside}}}" if inside else f"{self._name}{suffix}"
        stamp = "" if at_ms is None else f" {at_ms}"
        self._lines.append(f"{named} {number(value)}{stamp}")

    def text(self) -> str:
        return "\n".join([*self._lines, ""]) if self._lines else ""


def number(value: float) -> str:
    """Whole numbers without a point: a reader keeps every digit of a counter of nanoseconds or bytes."""
    if isinstance(value, int):
        return str(value)
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
