"""How much of the machine to keep from pods for what other programs on it use. Pure.

In: what others use beyond what is reserved for them, look by look, what there is for pods otherwise, and what pods have
asked for. Out: what is withheld, with hysteresis: a difference must be large and last, and between two changes there is
at least a minute. It is never so much that pods which are here would lack what they request.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

RESOURCES = ("cpu", "memory")
BAND = 20
"""A difference of less than one part in so many of the usual is none."""
MORE_AFTER_S = 20.0
LESS_AFTER_S = 60.0
"""What was freed is given out again only when it has been free for longer: whoever used it may use it again."""
DWELL_S = 60.0
"""Between two changes."""

Amounts = Mapping[str, int]
"""Of each of RESOURCES: millicores, bytes."""
NOTHING: Amounts = dict.fromkeys(RESOURCES, 0)


class Look(msgspec.Struct, frozen=True):
    at: float
    """Monotonic seconds."""
    over: Amounts
    """What others use beyond what is reserved for them."""


class Withheld(msgspec.Struct, frozen=True):
    amounts: Amounts = msgspec.field(default_factory=lambda: NOTHING)
    changed_at: float | None = None
    """None: not in this life of the agent."""
    looks: tuple[Look, ...] = ()
    """The newest last, as far back as decisions look."""


def decide(before: Withheld, look: Look, usual: Amounts, requested: Amounts) -> Withheld:
    """`usual` is allocatable with nothing withheld, `requested` what the pods that are here ask for."""
    oldest = look.at - LESS_AFTER_S
    first = max((one.at for one in before.looks if one.at <= oldest), default=oldest)
    looks = (*(one for one in before.looks if one.at >= first), look)
    wanted = {name: _wanted(name, before.amounts[name], looks, usual[name], requested[name]) for name in RESOURCES}
    dwelling = before.changed_at is not None and look.at - before.changed_at < DWELL_S
    if dwelling or wanted == before.amounts:
        return Withheld(before.amounts, before.changed_at, looks)
    return Withheld(wanted, look.at, looks)


def _wanted(name: str, now: int, looks: tuple[Look, ...], usual: int, requested: int) -> int:
    most = max(0, usual - requested)
    band = max(1, usual // BAND)
    if lately := _since(looks, MORE_AFTER_S):
        least = min(most, *(one.over[name] for one in lately))
        if least - now >= band:
            return least
    if lately := _since(looks, LESS_AFTER_S):
        largest = max(0, *(min(most, one.over[name]) for one in lately))
        # The last of it is given back however little it is.
        if now - largest >= band or 0 == largest < now:
            return largest
    return now


def _since(looks: tuple[Look, ...], seconds: float) -> tuple[Look, ...]:
    """Those of the last so many seconds; none where the looks do not go back so far."""
    begin = looks[-1].at - seconds
    before = [one.at for one in looks if one.at <= begin]
    return tuple(one for one in looks if one.at >= before[-1]) if before else ()
