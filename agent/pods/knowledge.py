"""What a pod's worker knows beside what the runtime shows: the third input of planning and of the status.

Frozen values made anew by the worker for each decision. Times are monotonic seconds unless their name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from agent.model.container import ResourceRequirements
from agent.pods.backoff import Backoff
from agent.pods.resize import NO_RESIZE, Resize


class StopCause(StrEnum):
    DELETED = "deleted"
    """The pod is going from the API, the record or its manifest: nothing of it may stay."""
    FAILED = "failed"
    """The node ended it (deadline): containers stay for their logs, the status says Failed."""
    PAUSED = "paused"
    """The node goes down, and nobody but this node can run the pod: it runs again when the node is up again."""


class Stop(msgspec.Struct, frozen=True):
    cause: StopCause
    deadline: float
    """When the grace period is over."""
    reason: str = ""
    message: str = ""
    disruption: str = ""
    """Not empty: the node had it go for others' sake; the text of the condition DisruptionTarget."""


class Failure(msgspec.Struct, frozen=True):
    """A step that did not work, and when it may be tried again."""

    reason: str
    message: str
    retry_at: float


class Health(msgspec.Struct, frozen=True):
    """What probes and hooks say of one running container."""

    started: bool = True
    """The startup probe has passed (or there is none) and postStart is over."""
    ready: bool = True
    failed: str = ""
    """Not empty: liveness or startup probe, or postStart, failed: kill it. The text is the Killing event's."""
    grace_s: int | None = None
    """The failed probe's own terminationGracePeriodSeconds."""
    restarts: bool = False
    """It failed a probe, and is to run again whatever its exit code will be."""


class Retention(msgspec.Struct, frozen=True):
    """What is kept of containers that have ended."""

    dead: int = 1
    """Runs of each container beside its newest; less than 0: all."""
    min_age_s: float = 0.0
    """From a container's end on."""


USUAL_RETENTION = Retention()


class Knowledge(msgspec.Struct, frozen=True):
    volumes_ready: bool = False
    volumes_mounted: bool = False
    """Something of the pod is on disk and must be taken down in the end."""
    failures: Mapping[str, Failure] = msgspec.field(default_factory=dict)
    """By container name: why it could not be started."""
    pod_failure: Failure | None = None
    """Why the sandbox could not be made."""
    volume_failure: Failure | None = None
    backoffs: Mapping[str, Backoff] = msgspec.field(default_factory=dict)
    ended_at: Mapping[str, float] = msgspec.field(default_factory=dict)
    """By container ID, for containers that have ended."""
    attempts: Mapping[str, int] = msgspec.field(default_factory=dict)
    """By container name: the highest attempt that was ever made, also where the runtime has that container no more."""
    replaced: frozenset[str] = frozenset()
    """IDs of containers that were ended in order to be started anew."""
    renewed: Mapping[str, str] = msgspec.field(default_factory=dict)
    """By container ID, of those that are ended for what they wrote: why. They go before they are started anew."""
    health: Mapping[str, Health] = msgspec.field(default_factory=dict)
    """By container ID."""
    stop: Stop | None = None
    ended: bool = False
    """The pod's status said before that it succeeded or failed: nothing of it runs again, whatever is left of it."""
    refused: str = ""
    """Not empty: the pod uses what this node does not support or allow; nothing of it is run."""
    refused_reason: str = "UnsupportedField"
    rejected: bool = False
    """The node did not take the pod: no container of it was ever to be made."""
    sizes: Mapping[str, ResourceRequirements] = msgspec.field(default_factory=dict)
    """By container ID: the resources that it really has."""
    whole: ResourceRequirements | None = None
    """Those of the pod itself that its cgroup really has."""
    outgrown: frozenset[str] = frozenset()
    """IDs of containers that have to be started anew for a resize."""
    resize: Resize = NO_RESIZE
    retention: Retention = USUAL_RETENTION
    taken_down: frozenset[str] = frozenset()
    """IDs of dead sandboxes whose network is known to be gone."""
    rush: bool = False
    """Other pods start right now: what costs the runtime as much as a start and can wait, waits."""
    last_sandbox_attempt: int = -1
    """Highest attempt tried, even where the runtime shows no such sandbox (its name may still be reserved)."""


NO_HEALTH = Health(started=False, ready=False)
"""Of a container whose probes have not said anything yet."""
