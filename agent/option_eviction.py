"""How the settings of evictions are written: thresholds, grace periods and minimum reclaims by signal.

In: what a flag or the settings file says. Out: mappings that are checked and kept as text. ValueError is one line.
Source: the Kubernetes page "Node-pressure Eviction"; names and forms are the kubelet's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from agent.config import Settings
from agent.errors import ConfigError
from agent.model import quantity
from agent.option_values import duration, text

SIGNALS = (
    "memory.available",
    "allocatableMemory.available",
    "nodefs.available",
    "nodefs.inodesFree",
    "imagefs.available",
    "imagefs.inodesFree",
    "pid.available",
)
_FOLLOWS = ("containerfs.available", "containerfs.inodesFree")
_SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")


def thresholds(value: object) -> dict[str, str]:
    """`memory.available<100Mi,nodefs.available<10%`, or a mapping. 0% and 100% mean no threshold, as to a kubelet."""
    found = {}
    for signal, amount in _by_signal(value, "<"):
        if (share := _share(signal, amount)) is None:
            if quantity.parse(amount) <= 0:
                raise ValueError(f"{signal}<{amount}: not more than zero")
        elif share in (0, 1):
            continue
        found[signal] = amount
    return found


def grace_periods(value: object) -> dict[str, float]:
    """`memory.available=1m30s`, or a mapping. Seconds."""
    return {signal: duration(amount) for signal, amount in _by_signal(value, "=")}


def minimum_reclaims(value: object) -> dict[str, str]:
    """`memory.available=0Mi,nodefs.available=500Mi,imagefs.available=2%`, or a mapping."""
    found = dict(_by_signal(value, "="))
    for signal, amount in found.items():
        share = _share(signal, amount)
        if share == 0 or (share is None and quantity.parse(amount) < 0):
            raise ValueError(f"{signal}={amount}: less than nothing is no amount to reclaim")
    return found


def check(settings: Settings) -> None:
    """What one setting asks of another. Raises ConfigError."""
    for signal in settings.eviction_soft:
        if signal not in settings.eviction_soft_grace_period:
            raise ConfigError(f"--eviction-soft: {signal} also needs --eviction-soft-grace-period={signal}=DURATION")


def _by_signal(value: object, sign: str) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        pairs = [(text(signal), str(amount).strip()) for signal, amount in value.items()]
    else:
        pairs = []
        for item in text(value).split(","):
            if not item.strip():
                continue
            signal, found, amount = item.partition(sign)
            if not found:
                raise ValueError(f"{item.strip()!r} is not written SIGNAL{sign}AMOUNT")
            pairs.append((signal.strip(), amount.strip()))
    seen = set()
    for signal, _ in pairs:
        if signal in _FOLLOWS:
            raise ValueError(f"{signal} follows nodefs or imagefs and cannot be set")
        if signal not in SIGNALS:
            raise ValueError(f"{signal!r} is no eviction signal: {', '.join(SIGNALS)}")
        if signal in seen:
            raise ValueError(f"{signal} is there twice")
        seen.add(signal)
    return pairs


def _share(signal: str, amount: str) -> Fraction | None:
    """0 to 1; None: it is a quantity."""
    if not amount.endswith("%"):
        return None
    match = _SHARE.fullmatch(amount)
    if match is None or (share := Fraction(match[1]) / 100) > 1:
        raise ValueError(f"{signal}: {amount!r} is no share between 0% and 100%")
    return share
