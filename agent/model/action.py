"""Orders that the planner gives and the worker performs: a closed set.

The actions of one plan do not depend on each other and are performed at the same time; what must come later is in
the next plan, made after the runtime was read again. Only kills may wait for each other: they share one grace period.
"""

from __future__ import annotations

import msgspec


class CreateSandbox(msgspec.Struct, frozen=True):
    attempt: int
    replaces: str | None = None
    """A dead sandbox whose network must be down first: it may still hold an address and host ports."""


class StopSandbox(msgspec.Struct, frozen=True):
    """End what still runs in it and take its network down."""

    sandbox_id: str


class RemoveSandbox(msgspec.Struct, frozen=True):
    """Remove it with its containers."""

    sandbox_id: str


class SetUpVolumes(msgspec.Struct, frozen=True):
    """Fetch what the pod refers to and mount its volumes."""


class TearDownVolumes(msgspec.Struct, frozen=True):
    """Unmount the pod's volumes and remove its folder."""


class ContainerStart(msgspec.Struct, frozen=True):
    """One container to create and start."""

    name: str
    attempt: int
    resume_id: str | None = None
    """A container that was created and never started (the agent died between): start that one."""


class StartContainers(msgspec.Struct, frozen=True):
    """Start these in the order given; one that fails does not hold the others back."""

    starts: tuple[ContainerStart, ...]


class KillContainer(msgspec.Struct, frozen=True):
    """Stop signal, then SIGKILL after `grace_s` seconds."""

    container_id: str
    name: str
    grace_s: int
    message: str
    """Why, for the Killing event."""
    replaced: bool = False
    """It is to be started anew, whatever its exit code and the restart policies say."""
    after: tuple[str, ...] = ()
    """Containers killed at the same time that must have ended before this one is stopped, while the grace lasts."""


class RemoveContainer(msgspec.Struct, frozen=True):
    """Remove a dead container that no status needs any more."""

    container_id: str
    keep_log: bool = False
    """The log stays until the pod goes: the container is taken away so that the whole pod starts over."""


Action = (
    CreateSandbox
    | StopSandbox
    | RemoveSandbox
    | SetUpVolumes
    | TearDownVolumes
    | StartContainers
    | KillContainer
    | RemoveContainer
)
