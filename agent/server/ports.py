"""What the server needs of the rest of the agent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from agent.model.record import PodRecord
from agent.model.status import PodStatus


class Pods(Protocol):
    """The provider contract's way to find a pod."""

    async def get_pod(self, namespace: str, name: str) -> PodRecord:
        """The newest pod of that name. Raises NotFound."""


class PodStatuses(Protocol):
    def with_status(self) -> Iterable[tuple[PodRecord, PodStatus | None]]:
        """Every pod that this node has, with its status now; None: none was made yet, the API server's stands."""
