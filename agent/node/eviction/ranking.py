"""Which pod goes first: those that use more than they asked for, the less important ones, the greatest of them.

In: pods and what they use. Out: the same pods in the order in which they would go. Pure.
Source: the Kubernetes page "Node-pressure Eviction", on pod selection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

import msgspec

from agent.model.pod import Pod
from agent.node.eviction.signals import IMAGE_FS, RESOURCES, Resource, Signal
from agent.pods.pod_totals import pod_requests
from agent.stats.figures import PodFigures, Taken


class Candidate(msgspec.Struct, frozen=True):
    pod: Pod
    figures: PodFigures | None
    """None: nobody knows what it uses."""


class Parts(msgspec.Struct, frozen=True):
    """What of a pod lies on the file system that is short."""

    written: bool = True
    """What containers wrote to their own file systems."""
    kept: bool = True
    """Logs and volumes."""


def parts(signal: Signal, *, own_image_disk: bool) -> Parts:
    """`own_image_disk`: images and containers are on another file system than volumes and logs."""
    if not own_image_disk:
        return Parts()
    return Parts(kept=False) if signal in IMAGE_FS else Parts(written=False)


def ranked(candidates: Iterable[Candidate], signal: Signal, of: Parts) -> Sequence[Candidate]:
    """One whose use nobody knows goes first, except for process ids, where priority comes before."""
    resource = RESOURCES[signal]

    def order(one: Candidate) -> tuple[Fraction | int | bool, ...]:
        priority = one.pod.spec.priority or 0
        if resource is Resource.PIDS:
            details = one.figures.details if one.figures is not None else None
            return (priority, details is not None, -(details.processes if details is not None else 0))
        if one.figures is None:
            return (False, False, priority, 0)
        over = used(one.figures, resource, of) - _requested(one.pod, resource)
        return (True, over <= 0, priority, -over)

    return sorted(candidates, key=order)


def used(figures: PodFigures, resource: Resource, of: Parts) -> int:
    match resource:
        case Resource.MEMORY:
            return figures.usage.working_set_bytes if figures.usage is not None else 0
        case Resource.DISK:
            return sum(one.used_bytes for one in _taken(figures, of))
        case Resource.INODES:
            return sum(one.inodes for one in _taken(figures, of))
        case Resource.PIDS:
            return figures.details.processes if figures.details is not None else 0


def _taken(figures: PodFigures, of: Parts) -> Iterable[Taken]:
    for container in figures.containers:
        if of.written and container.writable is not None:
            yield container.writable
        if of.kept and container.log is not None:
            yield container.log
    if of.kept:
        yield from (Taken(one.disk.used_bytes, one.disk.inodes_used) for one in figures.volumes if one.on_node)


def _requested(pod: Pod, resource: Resource) -> Fraction:
    try:
        return pod_requests(pod).get(resource, Fraction(0))
    except ValueError:
        return Fraction(0)
