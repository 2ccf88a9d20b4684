"""Resizing a pod that runs: what was allocated to it, what is wanted, and what its containers really have.

In: a pod as it was and as it is wanted; resources of containers. Out: the pod with the resources of another, and what
must change for it. Only cpu and memory can be resized. No I/O: `resizing` performs it.
Source: the Kubernetes pages "Resize CPU and Memory Resources assigned to Containers" and "… assigned to Pods".
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import msgspec

from agent.model import quantity
from agent.model.container import Container, ResourceRequirements
from agent.model.pod import Pod, PodCondition
from agent.pods.pod_totals import effective_requests

RESIZABLE = ("cpu", "memory")
PENDING = "PodResizePending"
IN_PROGRESS = "PodResizeInProgress"
INFEASIBLE = "Infeasible"
DEFERRED = "Deferred"
ERROR = "Error"
RESTART = "RestartContainer"

_Amounts = tuple[Fraction, ...]


class Resize(msgspec.Struct, frozen=True):
    """What the status tells of it; all empty: nothing is going on."""

    pending: str = ""
    """Why it has to wait: Deferred or Infeasible."""
    pending_message: str = ""
    in_progress: bool = False
    error: str = ""
    """What the last try to perform it met."""


NO_RESIZE = Resize()


def resize_conditions(resize: Resize) -> Iterator[PodCondition]:
    if resize.pending:
        yield PodCondition(type=PENDING, status="True", reason=resize.pending, message=resize.pending_message)
    if resize.in_progress:
        error = ERROR if resize.error else None
        yield PodCondition(type=IN_PROGRESS, status="True", reason=error, message=resize.error or None)


def same_size(one: Pod, other: Pod) -> bool:
    """Whether both ask for the same cpu and memory, container by container and as a whole."""
    return _of(one.spec.resources) == _of(other.spec.resources) and all(
        _of(mine.resources) == _of(its.resources) for mine, its in _pairs(one, other)
    )


def with_size(pod: Pod, of: Pod) -> Pod:
    """The pod with the resources of the other; `pod` itself where they are the same."""
    if same_size(pod, of):
        return pod
    sizes = {container.name: container.resources for container in (*of.spec.containers, *of.spec.initContainers)}

    def sized(containers: tuple[Container, ...]) -> tuple[Container, ...]:
        return tuple(msgspec.structs.replace(c, resources=sizes.get(c.name, c.resources)) for c in containers)

    spec = msgspec.structs.replace(
        pod.spec,
        containers=sized(pod.spec.containers),
        initContainers=sized(pod.spec.initContainers),
        resources=of.spec.resources,
    )
    return msgspec.structs.replace(pod, spec=spec)


def with_whole(pod: Pod, whole: ResourceRequirements | None) -> Pod:
    """The pod with these resources of its own, its containers with theirs."""
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, resources=whole))


def differ(container: Container, has: ResourceRequirements) -> frozenset[str]:
    """Which of cpu and memory the container has not as its spec says."""
    wanted, now = _of(container.resources), _of(has)
    half = len(RESIZABLE)
    return frozenset(n for i, n in enumerate(RESIZABLE) if (wanted[i], wanted[i + half]) != (now[i], now[i + half]))


def whole_changes(pod: Pod, had: ResourceRequirements | None) -> frozenset[str]:
    """Which limits the pod as a whole has not had: a container without a limit has them too."""
    now, before = _of(pod.spec.resources), _of(had)
    half = len(RESIZABLE)
    return frozenset(name for i, name in enumerate(RESIZABLE) if now[i + half] != before[i + half])


def needs_restart(container: Container, changed: frozenset[str]) -> bool:
    return any(one.resourceName in changed and one.restartPolicy == RESTART for one in container.resizePolicy)


def resized(container: Container) -> ResourceRequirements:
    """What a container that has everything of its spec has."""
    requests = dict(effective_requests(container.resources)) or None
    return ResourceRequirements(limits=container.resources.limits, requests=requests)


def _of(resources: ResourceRequirements | None) -> _Amounts:
    """Requests, then limits."""
    if resources is None:
        return (Fraction(0),) * (2 * len(RESIZABLE))
    lists = (effective_requests(resources), resources.limits or {})
    return tuple(quantity.parse(amounts.get(name, 0)) for amounts in lists for name in RESIZABLE)


def _pairs(one: Pod, other: Pod) -> Iterator[tuple[Container, Container]]:
    known = {container.name: container for container in (*other.spec.containers, *other.spec.initContainers)}
    for container in (*one.spec.containers, *one.spec.initContainers):
        if container.name in known:
            yield container, known[container.name]
