"""Exponential backoff as the kubelet counts it: for crashing containers and for failing images.

Pure: times are monotonic seconds, given by the caller. 10 s doubling to 300 s; forgotten when nothing went wrong for
twice the maximum, which gives the "reset after ten minutes" that users know.
"""

from __future__ import annotations

import msgspec

INITIAL_S = 10.0
MAXIMUM_S = 300.0


class Backoff(msgspec.Struct, frozen=True):
    delay_s: float
    updated_at: float
    """When it was last raised."""


def ready_at(backoff: Backoff | None, failed_at: float) -> float:
    """The moment from which another try is allowed after a failure at `failed_at`."""
    if backoff is None or _is_forgotten(backoff, failed_at):
        return failed_at
    return failed_at + backoff.delay_s


def raised(backoff: Backoff | None, failed_at: float, now: float) -> Backoff:
    """The backoff after one more try is made now because of a failure at `failed_at`."""
    if backoff is None or _is_forgotten(backoff, failed_at):
        return Backoff(INITIAL_S, now)
    return Backoff(min(backoff.delay_s * 2, MAXIMUM_S), now)


def _is_forgotten(backoff: Backoff, failed_at: float) -> bool:
    return failed_at - backoff.updated_at > 2 * MAXIMUM_S
