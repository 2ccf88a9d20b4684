"""Resource quantities: "100m", "1.5Gi", "2e3", 4.

Exact arithmetic (Fraction), the kubelet's rounding: up, never down, when a whole number is asked for.
Source: the Kubernetes API reference, Quantity.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

_SUFFIX: dict[str, Fraction] = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}
_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d{1,3})|([numkMGTPE]|[KMGTPE]i)?)", re.ASCII)


@lru_cache(maxsize=512)
def parse(quantity: str | int | float) -> Fraction:
    """The exact value of a quantity in its base unit (cores, bytes, pieces).

    Raises ValueError with one line that quotes the text where it is none.
    """
    if isinstance(quantity, int):
        return Fraction(quantity)
    text = str(quantity).strip()
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"not a resource quantity: {text!r}")
    number, exponent, suffix = match.groups()
    if exponent is not None:
        return Fraction(number) * Fraction(10) ** int(exponent)
    return Fraction(number) * _SUFFIX[suffix or ""]


def ceil_units(quantity: str | int | float) -> int:
    """Whole base units (bytes, cores), rounded up. Raises ValueError."""
    return -(-parse(quantity) // 1)


def ceil_milli(quantity: str | int | float) -> int:
    """Thousandths (millicores), rounded up. Raises ValueError."""
    return -(-(parse(quantity) * 1000) // 1)


def canonical(value: Fraction, *, binary: bool) -> str:
    """As the API server writes it: the largest unit that leaves a whole number; `binary`: Ki, Mi … from 1024 on.

    What is finer than a billionth is rounded up.
    """
    if binary and value >= 1024:
        value = Fraction(-(-value // 1))
    units = _BINARY if binary and value >= 1024 else _DECIMAL
    number = -(-value // _SUFFIX["n"]) * _SUFFIX["n"]
    unit = next(unit for unit in units if (number / _SUFFIX[unit]).denominator == 1) if number else ""
    return f"{number / _SUFFIX[unit]}{unit}"


def spelled(quantity: str | int | float) -> str:
    """A quantity of a spec as the API server writes it, in the kind of units that it was written in."""
    return canonical(parse(quantity), binary=is_binary(quantity))


def is_binary(quantity: str | int | float) -> bool:
    """It is written in powers of 1024."""
    return isinstance(quantity, str) and quantity.endswith("i")


_BINARY = ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki", "")
_DECIMAL = ("E", "P", "T", "G", "M", "k", "", "m", "u", "n")
