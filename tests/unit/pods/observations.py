"""Observed pods for tests: containers and sandboxes with what a test is about laid over them."""

from __future__ import annotations

from typing import Any

from agent.model.container import Container
from agent.model.observed import ContainerState, ObservedContainer, ObservedPod, ObservedSandbox
from agent.pods.translate.identity import spec_hash

SECOND_NS = 1_000_000_000
START_NS = 1_700_000_000 * SECOND_NS
CREATED, RUNNING, EXITED, UNKNOWN = (
    ContainerState.CREATED,
    ContainerState.RUNNING,
    ContainerState.EXITED,
    ContainerState.UNKNOWN,
)


def sandbox(attempt: int = 0, *, ready: bool = True, ips: tuple[str, ...] = ("10.0.0.5",)) -> ObservedSandbox:
    """Its ID is `s` and the attempt."""
    return ObservedSandbox(f"s{attempt}", attempt, ready, START_NS + attempt, ips)


def container(
    name: str = "main", state: ContainerState = RUNNING, *, attempt: int = 0, **fields: Any
) -> ObservedContainer:
    """Container of image `busybox` in sandbox s0, its ID is its name and the attempt (`main-0`)."""
    ran = state in (RUNNING, EXITED)
    values: dict[str, Any] = {
        "id": f"{name}-{attempt}",
        "name": name,
        "sandbox_id": "s0",
        "attempt": attempt,
        "state": state,
        "image": "docker.io/library/busybox:latest",
        "image_id": "sha256:1",
        "spec_hash": spec_hash(Container(name=name, image="busybox")),
        "created_at_ns": START_NS + attempt * SECOND_NS,
        "started_at_ns": START_NS + attempt * SECOND_NS if ran else 0,
        "finished_at_ns": START_NS + (attempt + 1) * SECOND_NS if state is EXITED else 0,
    }
    return ObservedContainer(**{**values, **fields})


def exited(name: str = "main", code: int = 0, *, attempt: int = 0, **fields: Any) -> ObservedContainer:
    return container(name, EXITED, attempt=attempt, exit_code=code, **fields)


def observed(*found: ObservedContainer | ObservedSandbox) -> ObservedPod:
    """Newest first, as the observer has them."""
    sandboxes = [s for s in found if isinstance(s, ObservedSandbox)]
    containers = [c for c in found if isinstance(c, ObservedContainer)]
    return ObservedPod(
        "u-1",
        "shop",
        "web",
        tuple(sorted(sandboxes, key=lambda s: s.attempt, reverse=True)),
        tuple(sorted(containers, key=lambda c: (c.attempt, c.created_at_ns), reverse=True)),
    )
