"""The time as far as it is known, on a machine whose clock may be wrong by years. Pure; a leaf.

In: the seconds since the machine's start, which never jump, what its clock shows, what the API server says, and what
the record holds of before. Out: Unix seconds that are believed, and how long ago a moment was that was written in them.

A clock that shows an earlier time than the last known one is not believed, and neither is one that jumps after the API
server has told the time. Each change of belief is a step that is remembered: the time that passed between two moments
is known also where the clock was set in between.
"""

from __future__ import annotations

import msgspec

NEAR_S = 300.0
"""A clock that is so near to the known time is believed."""
STEADY_S = 30.0
"""A smaller difference is a clock that is being adjusted, and no step."""
STEPS_KEPT = 16


class Step(msgspec.Struct, frozen=True, array_like=True):
    at: float
    """The node's time: seconds that it has lived."""
    unix: float
    """What was believed from then on; it goes on evenly until the next step."""


class Reading(msgspec.Struct, frozen=True):
    """What the clocks show at one moment."""

    boot: str
    """Which start of the machine."""
    up: float
    """Seconds since then, those of a suspension too."""
    wall: float
    """Unix seconds by the machine's clock."""


class KnownTime(msgspec.Struct, frozen=True):
    """What is known at one moment; also the form in which the record has it."""

    boot: str
    up: float
    lived: float
    """The node's time at `up`: it only grows, over restarts of the agent and of the machine."""
    steps: tuple[Step, ...]
    floor: float
    """Unix seconds at `up` below which no clock is believed."""
    told: bool = False
    """The API server has said the time since the machine's start."""

    def at(self, up: float) -> float:
        """The node's time."""
        return self.lived + up - self.up

    def unix(self, up: float) -> float:
        """Without a look at any clock."""
        last = self.steps[-1]
        return last.unix + self.at(up) - last.at

    def since(self, moment: float, up: float) -> float:
        """Seconds that have passed since the node wrote that moment, in Unix seconds as they were believed then.

        Of two answers the smaller; of a moment from before all that is remembered what the times' difference says.
        """
        now = end = self.at(up)
        for step in reversed(self.steps):
            at = step.at + moment - step.unix
            slack = 0.0 if step is self.steps[0] else STEADY_S
            if step.at - slack <= at <= end + STEADY_S:
                return now - min(max(at, step.at), end)
            end = step.at
        return max(0.0, self.unix(up) - moment)


def begun(kept: KnownTime | None, now: Reading, *, corrigible: bool) -> KnownTime:
    """At the agent's start. `corrigible`: there is an API server, which says so some day when the known time is wrong;
    without one the clock is all there is, and is believed."""
    if kept is None or not kept.steps:
        return KnownTime(now.boot, now.up, 0.0, (Step(0.0, now.wall),), floor=0.0)
    if kept.boot == now.boot and kept.up <= now.up:
        return looked(kept, now)
    # The machine was off for nobody knows how long: what its clock shows is believed where it can be true.
    last = kept.unix(kept.up)
    off = max(0.0, now.wall - last)
    again = KnownTime(now.boot, now.up, kept.lived + off, kept.steps, floor=last + off if corrigible else 0.0)
    return looked(again, now)


def looked(known: KnownTime, now: Reading) -> KnownTime:
    """After a look at the machine's clock; the same value where nothing changed."""
    difference = abs(now.wall - known.unix(now.up))
    if difference <= STEADY_S:
        return known
    if difference > NEAR_S and (known.told or now.wall < known.floor + now.up - known.up):
        return known
    return _stepped(known, now.up, now.wall)


def heard(known: KnownTime, now: Reading, server_unix: float) -> KnownTime:
    """After the API server said its time, which settles it."""
    if abs(server_unix - known.unix(now.up)) > NEAR_S:
        known = _stepped(known, now.up, server_unix)
    elif known.told:
        return known
    return msgspec.structs.replace(known, told=True)


def believed(known: KnownTime, now: Reading) -> float:
    """The Unix seconds to go by: the clock's own wherever it can be true, so that they fit those of other programs."""
    steady = known.unix(now.up)
    return now.wall if abs(now.wall - steady) <= NEAR_S else steady


def kept(known: KnownTime, up: float) -> KnownTime:
    """The same, as it is to be recorded now."""
    passed = up - known.up
    return msgspec.structs.replace(known, up=up, lived=known.lived + passed, floor=known.floor + passed)


def _stepped(known: KnownTime, up: float, unix: float) -> KnownTime:
    steps = (*known.steps, Step(known.at(up), unix))[-STEPS_KEPT:]
    return msgspec.structs.replace(known, steps=steps)
