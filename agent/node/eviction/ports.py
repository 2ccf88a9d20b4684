"""What eviction needs of whoever runs the pods, as Protocols; and what it hands over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

import msgspec

from agent.model.pod import Pod
from agent.node.eviction.signals import Resource

if TYPE_CHECKING:  # a node that never runs short need not hold the code
    from agent.stats.figures import PodFigures
    from agent.stats.storage import LocalStorage


class Eviction(msgspec.Struct, frozen=True):
    """A pod is to end, for good."""

    message: str
    grace_s: int
    disruption: str = ""
    """The text of the condition DisruptionTarget; empty: it goes for what it did itself."""


class Reclaimer(Protocol):
    async def reclaim(self) -> None:
        """Free what disk can be freed without ending a pod: dead containers, images that nobody uses.

        Returns when that is done; what cannot be freed now is left.
        """


class EvictablePods(Reclaimer, Protocol):
    """The pods of a provider that lets the agent end them. Nothing here raises for a runtime that is away."""

    @property
    def cgroup(self) -> PurePosixPath | None:
        """Of all pods together, below the mount; None: not known yet."""

    async def image_dir(self) -> Path | None:
        """A folder on the file system of images and of what containers write; None: not known yet."""

    def active(self) -> Sequence[Pod]:
        """Pods that have not ended and that were not told to for the node's sake."""

    async def figures(self, resource: Resource) -> Mapping[str, PodFigures]:
        """What pods use of it, and what comes with that, by UID; those of which nothing runs are missing."""

    async def storage(self, pods: Sequence[Pod]) -> Mapping[str, LocalStorage]:
        """What these pods have written to the node's disk, by UID."""

    def evict(self, uid: str, eviction: Eviction) -> None:
        """Begin to end it. It stays ended over restarts of the agent."""

    def is_down(self, uid: str) -> bool:
        """Nothing of the pod runs any more, and its volumes are gone."""
