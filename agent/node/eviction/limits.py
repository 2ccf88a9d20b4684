"""Has a pod written more to the node's disk than it may? Its emptyDirs, the pod as a whole, then each container.

In: the pod and what it has written. Out: what it exceeded and the message, or None. Pure.
Source: the Kubernetes page "Local ephemeral storage".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from agent.model import quantity
from agent.model.meta import Quantity
from agent.model.pod import Pod
from agent.pods.pod_totals import limits_of, pod_limits

if TYPE_CHECKING:
    from agent.stats.storage import LocalStorage

EPHEMERAL: Final = "ephemeral-storage"


class Exceeded(msgspec.Struct, frozen=True):
    limit: str
    """The name that the metric of evictions has for it."""
    message: str


def is_limited(pod: Pod) -> bool:
    return limits_written(pod) or any(True for _ in _size_limits(pod))


def limits_written(pod: Pod) -> bool:
    """What its containers write to their own file systems counts."""
    return any(EPHEMERAL in limits_of(one) for one in (*pod.spec.initContainers, *pod.spec.containers))


def exceeded(pod: Pod, storage: LocalStorage, *, own_image_disk: bool) -> Exceeded | None:
    """`own_image_disk`: what a container writes is not on the disk whose use it is limited in, only its log is.

    Raises ValueError where a quantity cannot be read.
    """
    for name, limit in _size_limits(pod):
        if storage.volumes.get(name, 0) > quantity.parse(limit):
            message = f'Usage of EmptyDir volume "{name}" exceeds the limit "{quantity.spelled(limit)}". '
            return Exceeded("emptydirfs.limit", message)
    if not limits_written(pod):
        return None
    whole = pod_limits(pod)[EPHEMERAL]
    if storage.total > whole:
        text = quantity.canonical(whole, binary=_is_binary(pod))
        message = f"Pod ephemeral local storage usage exceeds the total limit of containers {text}. "
        return Exceeded("ephemeralpodfs.limit", message)
    for container in pod.spec.containers:
        own = limits_of(container).get(EPHEMERAL, 0)
        used = storage.logs.get(container.name, 0)
        used += 0 if own_image_disk else storage.written.get(container.name, 0)
        if quantity.parse(own) and used > quantity.parse(own):
            message = (
                f'Container {container.name} exceeded its local ephemeral storage limit "{quantity.spelled(own)}". '
            )
            return Exceeded("ephemeralcontainerfs.limit", message)
    return None


def _size_limits(pod: Pod) -> list[tuple[str, Quantity]]:
    """Of emptyDirs on disk: those in memory are held by their own size."""
    return [
        (volume.name, limit)
        for volume in pod.spec.volumes
        if volume.emptyDir is not None
        and not volume.emptyDir.medium
        and (limit := volume.emptyDir.sizeLimit) is not None
        and quantity.parse(limit) > 0
    ]


def _is_binary(pod: Pod) -> bool:
    """A sum is written as the first of its parts."""
    parts = [limits_of(one).get(EPHEMERAL) for one in (*pod.spec.initContainers, *pod.spec.containers)]
    return quantity.is_binary(next((part for part in parts if part is not None), ""))
