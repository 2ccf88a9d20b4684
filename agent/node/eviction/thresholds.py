"""When is it too little: thresholds with their grace periods, minimum reclaims, and what the Node shows of them.

In: what is available now, and the state after the look before. Out: the state after this one, the Node's conditions,
and the thresholds that pods must go for now. Pure; times are monotonic seconds.
Source: the Kubernetes page "Node-pressure Eviction".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

import msgspec

from agent.config import Settings
from agent.model import quantity
from agent.node.eviction.signals import CONDITIONS, RESOURCES, Condition, Observations, Resource, Signal

LOOK_EVERY_S = 10.0
LOOK_CLOSELY_S = 1.0
NEAR = 2
"""With less than so many times a memory threshold available a look every ten seconds would come too late."""


class Amount(msgspec.Struct, frozen=True):
    """A quantity, or a share of the capacity (`10%`)."""

    text: str

    def of(self, capacity: int) -> int:
        if self.text.endswith("%"):
            return int(capacity * Fraction(self.text[:-1]) / 100)
        return quantity.ceil_units(self.text)

    def spelled(self, capacity: int) -> str:
        """As a message says it."""
        if self.text.endswith("%"):
            return quantity.canonical(Fraction(self.of(capacity)), binary=True)
        return quantity.spelled(self.text)


class Threshold(msgspec.Struct, frozen=True):
    signal: Signal
    amount: Amount
    grace_s: float = 0.0
    """0: a hard one."""
    minimum_reclaim: Amount | None = None

    @property
    def hard(self) -> bool:
        return self.grace_s == 0

    @property
    def resource(self) -> Resource:
        return RESOURCES[self.signal]


def thresholds(settings: Settings) -> tuple[Threshold, ...]:
    """Hard ones first, memory first among them."""
    found = [_threshold(settings, signal, amount) for signal, amount in settings.eviction_hard.items()]
    if "pods" in settings.enforce_node_allocatable and "memory.available" in settings.eviction_hard:
        # The pods' cgroup is their limit together: they must go before the kernel ends one of them.
        own = _threshold(settings, "memory.available", settings.eviction_hard["memory.available"])
        if not any(one.signal is Signal.ALLOCATABLE_MEMORY for one in found):
            found.append(Threshold(Signal.ALLOCATABLE_MEMORY, own.amount, minimum_reclaim=own.minimum_reclaim))
    found += [
        _threshold(settings, signal, amount, settings.eviction_soft_grace_period[signal])
        for signal, amount in settings.eviction_soft.items()
    ]
    return tuple(sorted(found, key=lambda one: one.resource is not Resource.MEMORY))


def _threshold(settings: Settings, signal: str, amount: str, grace_s: float = 0.0) -> Threshold:
    reclaim = settings.eviction_minimum_reclaim.get(signal)
    return Threshold(Signal(signal), Amount(amount), grace_s, None if reclaim is None else Amount(reclaim))


class State(msgspec.Struct, frozen=True):
    """What one look leaves to the next."""

    since: Mapping[Threshold, float] = msgspec.field(default_factory=dict)
    """Since when a threshold has been crossed without a break."""
    seen_at: Mapping[Condition, float] = msgspec.field(default_factory=dict)
    """When a condition was last found."""
    unresolved: tuple[Threshold, ...] = ()
    """Crossed for all of their grace: they are over only with their minimum reclaim."""


class Look(msgspec.Struct, frozen=True):
    state: State
    conditions: frozenset[Condition]
    """What the Node shows."""
    reclaim: tuple[Threshold, ...]
    """Those that a pod must go for, the first one before the others."""


def look(
    every: tuple[Threshold, ...], before: State, seen: Observations, now: float, *, transition_period_s: float
) -> Look:
    crossed = {*met(every, seen), *met(before.unresolved, seen, reclaimed=True)}
    since = {one: before.since.get(one, now) for one in every if one in crossed}
    found = {CONDITIONS[one.resource]: now for one in since}
    seen_at = {**before.seen_at, **found}
    due = tuple(one for one, began in since.items() if now - began >= one.grace_s)
    return Look(
        State(since, seen_at, due),
        frozenset(condition for condition, at in seen_at.items() if now - at < transition_period_s),
        due,
    )


def met(among: Iterable[Threshold], seen: Observations, *, reclaimed: bool = False) -> tuple[Threshold, ...]:
    """Those that are crossed; `reclaimed`: also those whose minimum reclaim is not there yet."""
    return tuple(one for one in among if _is_met(one, seen, reclaimed=reclaimed))


def _is_met(one: Threshold, seen: Observations, *, reclaimed: bool) -> bool:
    if (observed := seen.get(one.signal)) is None:
        return False
    least = one.amount.of(observed.capacity)
    if reclaimed and one.minimum_reclaim is not None:
        least += one.minimum_reclaim.of(observed.capacity)
    return observed.available < least


def next_look_s(every: tuple[Threshold, ...], seen: Observations) -> float:
    """How long this look is good for: memory goes faster than anything else."""
    for one in every:
        observed = seen.get(one.signal)
        if observed is None or one.resource is not Resource.MEMORY:
            continue
        least = one.amount.of(observed.capacity)
        if least <= observed.available < NEAR * least:
            return LOOK_CLOSELY_S
    return LOOK_EVERY_S


def kept_free(settings: Settings, signal: Signal, capacity: int) -> int:
    """What the hard threshold of a signal keeps from pods."""
    amount = settings.eviction_hard.get(signal)
    return 0 if amount is None else min(capacity, Amount(amount).of(capacity))
