"""A pod as the runtime has it: sandboxes and containers found by our labels, newest first.

In: what the CRI listed. Out: frozen values that the planner and the status read. Times are Unix nanoseconds of the
runtime's clock; 0 means "not yet".
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class ContainerState(StrEnum):
    """CRI's ContainerState."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


class ObservedContainer(msgspec.Struct, frozen=True):
    id: str
    name: str
    sandbox_id: str
    attempt: int
    """CRI metadata.attempt, which is the restart count."""
    state: ContainerState
    image: str
    """The image as the container's spec names it."""
    image_id: str
    """The runtime's image reference (imageID in the pod's status)."""
    spec_hash: str
    created_at_ns: int
    started_at_ns: int = 0
    finished_at_ns: int = 0
    exit_code: int = 0
    reason: str = ""
    """The runtime's word for the end: Completed, Error, OOMKilled, StartError …"""
    message: str = ""
    """The termination message (file or log tail) or the runtime's own error."""
    user: tuple[int, int, tuple[int, ...]] | None = None
    """uid, gid, supplemental groups of the first process, where the runtime reports them."""


class ObservedSandbox(msgspec.Struct, frozen=True):
    id: str
    attempt: int
    ready: bool
    created_at_ns: int
    ips: tuple[str, ...] = ()
    """Primary address first; empty for pods on the host's network."""


class ObservedPod(msgspec.Struct, frozen=True):
    uid: str
    namespace: str
    name: str
    sandboxes: tuple[ObservedSandbox, ...] = ()
    containers: tuple[ObservedContainer, ...] = ()
    abandoned: tuple[ObservedContainer, ...] = ()
    """Containers whose start the runtime gave up when its caller went: their program never ran, they count as none."""

    @property
    def sandbox(self) -> ObservedSandbox | None:
        """The newest sandbox, None where the pod has none."""
        return self.sandboxes[0] if self.sandboxes else None

    def newest(self, name: str) -> ObservedContainer | None:
        """The newest container of that name, None where there was never one."""
        return next((c for c in self.containers if c.name == name), None)

    @property
    def running(self) -> tuple[ObservedContainer, ...]:
        return tuple(c for c in self.containers if c.state is ContainerState.RUNNING)

    @property
    def alive(self) -> tuple[ObservedContainer, ...]:
        """What runs, and what may run for all that the runtime knows."""
        return tuple(c for c in self.containers if c.state in (ContainerState.RUNNING, ContainerState.UNKNOWN))
