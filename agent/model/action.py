"""Orders that the planner gives and the worker performs: a closed set.

The actions of one plan do not depend on each other and are performed at the same time; what must come later is in
the next plan, made after the runtime was read again. Only kills may wait for each other: they share one grace period.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CreateSandbox:
    attempt: int
    replaces: str | None = None
    """A dead sandbox whose network must be down first: it may still hold an address and host ports."""


@dataclass(frozen=True, slots=True)
class StopSandbox:
    """End what still runs in it and take its network down."""

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class RemoveSandbox:
    """Remove it with its containers."""

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class SetUpVolumes:
    """Fetch what the pod refers to and mount its volumes."""


@dataclass(frozen=True, slots=True)
class TearDownVolumes:
    """Unmount the pod's volumes and remove its folder."""


@dataclass(frozen=True, slots=True)
class ContainerStart:
    """One container to create and start."""

    name: str
    attempt: int
    resume_id: str | None = None
    """A container that was created and never started (the agent died between): start that one."""


@dataclass(frozen=True, slots=True)
class StartContainers:
    """Start these in the order given; one that fails does not hold the others back."""

    starts: tuple[ContainerStart, ...]


@dataclass(frozen=True, slots=True)
class KillContainer:
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


@dataclass(frozen=True, slots=True)
class RemoveContainer:
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
