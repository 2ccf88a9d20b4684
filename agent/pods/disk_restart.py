"""Which containers have filled so much of their disk that they are started anew (`edgelet.io/restart-on-disk`).

In: what running containers with that policy have in their file systems, and how full the disk is that holds them. Out:
the one to start anew next, with the reason, or none. A container with a limit of ephemeral storage is measured by that
alone, any other by the whole disk, of which only the one goes that takes most of it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from agent.pods.garbage.image_collector import Room

LEAST_SHARE = 0.01
"""Of the disk: a container that has less in its file system would give too little back."""


class Layer(msgspec.Struct, frozen=True):
    """The file system of one running container of a pod with the policy."""

    uid: str
    name: str
    container_id: str
    used_bytes: int
    percent: int
    limit_bytes: int = 0
    """0: it has none."""


def over_limit(layers: Iterable[Layer]) -> list[tuple[Layer, str]]:
    """Those that have more of their own limit than they may."""
    return [
        (
            one,
            f"its file system has {_mib(one.used_bytes)}, {_percent(share)} of its ephemeral-storage limit of"
            f" {_mib(one.limit_bytes)}, and {one.percent} % is allowed.",
        )
        for one in layers
        if one.limit_bytes and (share := 100 * one.used_bytes / one.limit_bytes) >= one.percent
    ]


def fullest(layers: Iterable[Layer], disk: Room) -> tuple[Layer, str] | None:
    """Of those without a limit the one that has most, where the disk is fuller than it allows."""
    full = 100 * (1 - disk.available / disk.capacity) if disk.capacity else 0.0
    least = LEAST_SHARE * disk.capacity
    over = [one for one in layers if not one.limit_bytes and full >= one.percent and 0 < least <= one.used_bytes]
    if not over:
        return None
    most = max(over, key=lambda one: one.used_bytes)
    return most, (
        f"the node's disk is {_percent(full)} full, {most.percent} % is allowed, and its file system has"
        f" {_mib(most.used_bytes)} of it."
    )


def _mib(amount: int) -> str:
    return f"{amount / 2**20:.1f} MiB"


def _percent(share: float) -> str:
    return f"{share:.0f} %"
