"""What one pod's worker remembers between two looks at the runtime. Mutable, owned by that worker alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Set
from pathlib import Path

import msgspec
from msgspec.structs import replace

from agent.model.container import Container, ResourceRequirements
from agent.model.observed import ContainerState, ObservedPod
from agent.model.pod import ApiContainerStatus, Pod
from agent.model.record import PodRecord
from agent.model.status import ContainerStatus, PodStatus
from agent.pods.backoff import Backoff
from agent.pods.knowledge import USUAL_RETENTION, Failure, Health, Knowledge, Retention, Stop
from agent.pods.pull_faults import IMAGE_REASONS, is_away
from agent.pods.references import Referenced
from agent.pods.resize import NO_RESIZE, Resize

RETRY_INITIAL_S = 1.0
RETRY_MAXIMUM_S = 60.0


class PodState(msgspec.Struct):
    record: PodRecord
    refused: str = ""
    refused_reason: str = ""
    rejected: bool = False
    stop: Stop | None = None
    seen_at: str = ""
    """RFC 3339: when the agent first had the pod."""
    referenced: Referenced = msgspec.field(default_factory=Referenced)
    volume_paths: Mapping[str, Path] | None = None
    """Volume name to path; None until all are set up."""
    volumes_mounted: bool = False
    failures: dict[str, Failure] = msgspec.field(default_factory=dict)
    pod_failure: Failure | None = None
    volume_failure: Failure | None = None
    backoffs: dict[str, Backoff] = msgspec.field(default_factory=dict)
    image_backoffs: dict[str, Backoff] = msgspec.field(default_factory=dict)
    pull_failures: dict[str, str] = msgspec.field(default_factory=dict)
    """By image: what its last pull said, for those who only see that it backs off."""
    ended_at: dict[str, float] = msgspec.field(default_factory=dict)
    looked_at: float = -math.inf
    """Monotonic: when the runtime was last read."""
    retries: dict[str, float] = msgspec.field(default_factory=dict)
    """Seconds until the next try, by step."""
    post_starting: dict[str, Health] = msgspec.field(default_factory=dict)
    """By container ID: its postStart hook runs, or has failed."""
    attempts: dict[str, int] = msgspec.field(default_factory=dict)
    """By container name: the highest attempt that was ever made."""
    replaced: set[str] = msgspec.field(default_factory=set)
    """IDs of containers that were ended in order to be started anew."""
    renewed: dict[str, str] = msgspec.field(default_factory=dict)
    """By ID, containers that are to be started anew on an empty file system: why."""
    sizes: dict[str, ResourceRequirements] = msgspec.field(default_factory=dict)
    """By container ID: the resources that it really has."""
    whole: ResourceRequirements | None = None
    """Those of the pod itself that its cgroup and containers really have."""
    outgrown: set[str] = msgspec.field(default_factory=set)
    """IDs of containers that have to be started anew for a resize."""
    resize: Resize = NO_RESIZE
    retention: Retention = USUAL_RETENTION
    taken_down: set[str] = msgspec.field(default_factory=set)
    """IDs of dead sandboxes whose network is known to be gone."""
    last_sandbox_attempt: int = -1
    missed: set[str] = msgspec.field(default_factory=set)
    """Absent objects that an event told of."""
    refresh_at: float | None = None
    """Monotonic: when tokens in volumes must be written anew."""

    @property
    def pod(self) -> Pod:
        return self.record.pod

    def container(self, name: str) -> Container | None:
        return next((c for c in self.pod.spec.all_containers if c.name == name), None)

    def next_retry(self, step: str) -> float:
        """Seconds to wait after one more failure of a step: doubling, capped."""
        delay = min(self.retries.get(step, RETRY_INITIAL_S / 2) * 2, RETRY_MAXIMUM_S)
        self.retries[step] = delay
        return delay

    def retry_pulls(self) -> bool:
        """The next try of images whose registry was away is due now. False: there is none."""
        away = [image for image, why in self.pull_failures.items() if is_away(why)]
        for image in away:
            self.image_backoffs.pop(image, None)
        if away:
            for name, failure in self.failures.items():
                if failure.reason in IMAGE_REASONS:
                    self.failures[name] = replace(failure, retry_at=-math.inf)
        return bool(away)

    def note_ends(self, observed: ObservedPod, now: float, age: Callable[[int], float]) -> None:
        """Date the containers that have ended, in monotonic time, and forget those that are gone.

        What had not ended at the look before this one has ended since, whatever the clocks say (`age`: `Machine.age`).
        """
        ended = [c for c in observed.containers if c.state is ContainerState.EXITED]
        for container in ended:
            if container.id not in self.ended_at:
                ago = age(container.finished_at_ns) if container.finished_at_ns else 0.0
                self.ended_at[container.id] = max(now - ago, self.looked_at)
        self.looked_at = now
        for gone in self.ended_at.keys() - {c.id for c in ended}:
            del self.ended_at[gone]
        self.replaced &= {c.id for c in observed.containers}
        for gone in self.renewed.keys() - {c.id for c in observed.containers}:
            del self.renewed[gone]
        for container in observed.containers:
            self.note_attempt(container.name, container.attempt)

    def note_attempt(self, name: str, attempt: int) -> None:
        self.attempts[name] = max(attempt, self.attempts.get(name, -1))

    def recall_attempts(self, told: PodStatus | None, logged: Mapping[str, Set[int]], observed: ObservedPod) -> None:
        """What was made before this agent began, by the status that was told last and by the logs that lie there.

        A restart count never falls, and no two runs write into one log. `logged`: attempts by container name.
        """
        known: tuple[ApiContainerStatus | ContainerStatus, ...] = self.pod.status.all_containers
        for status in (*known, *(told.all_containers if told is not None else ())):
            # One that waits to be made for the nth time counts that time already.
            self.note_attempt(status.name, status.restartCount if status.containerID else status.restartCount - 1)
        never_ran = {(c.name, c.attempt) for c in observed.abandoned}
        for name, attempts in logged.items():
            self.note_attempt(name, max((n for n in attempts if (name, n) not in never_ran), default=-1))

    def knowledge(self, health: Mapping[str, Health], *, ended: bool, rush: bool = False) -> Knowledge:
        """The frozen view that decisions are made from."""
        return Knowledge(
            volumes_ready=self.volume_paths is not None,
            volumes_mounted=self.volumes_mounted,
            failures=dict(self.failures),
            pod_failure=self.pod_failure,
            volume_failure=self.volume_failure,
            backoffs=dict(self.backoffs),
            ended_at=dict(self.ended_at),
            attempts=dict(self.attempts),
            replaced=frozenset(self.replaced),
            renewed=dict(self.renewed),
            health={**health, **self.post_starting},
            stop=self.stop,
            ended=ended,
            refused=self.refused,
            refused_reason=self.refused_reason,
            rejected=self.rejected,
            sizes=dict(self.sizes),
            whole=self.whole,
            outgrown=frozenset(self.outgrown),
            resize=self.resize,
            retention=self.retention,
            taken_down=frozenset(self.taken_down),
            rush=rush,
            last_sandbox_attempt=self.last_sandbox_attempt,
        )
