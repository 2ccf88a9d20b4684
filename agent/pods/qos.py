"""The QoS class of a pod.

In: the pod. Out: Guaranteed, Burstable or BestEffort, by cpu and memory only: of the pod as a whole where it has
resources of its own, else of its containers, init containers counted.
Source: the Kubernetes pages "Pod Quality of Service Classes" and "Resource Management for Pods and Containers".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from fractions import Fraction

from agent.model import quantity
from agent.model.meta import Quantity
from agent.model.pod import Pod
from agent.pods.pod_totals import effective_requests, whole_limits, whole_requests

_COUNTED = ("cpu", "memory")


class QosClass(StrEnum):
    """status.qosClass; the lower-case form names the cgroup level."""

    GUARANTEED = "Guaranteed"
    BURSTABLE = "Burstable"
    BEST_EFFORT = "BestEffort"


def qos_class(pod: Pod) -> QosClass:
    """The class of the pod. Raises ValueError where a quantity cannot be read."""
    requests: dict[str, Fraction] = {}
    limits: dict[str, Fraction] = {}
    every_container_limited = True
    if pod.spec.resources is not None:
        _add(requests, whole_requests(pod))
        every_container_limited = _add(limits, whole_limits(pod)) == set(_COUNTED)
    for container in (*pod.spec.containers, *pod.spec.initContainers) if pod.spec.resources is None else ():
        _add(requests, effective_requests(container.resources))
        limited = _add(limits, container.resources.limits or {})
        every_container_limited = every_container_limited and limited == set(_COUNTED)
    if not requests and not limits:
        return QosClass.BEST_EFFORT
    if every_container_limited and requests == limits:
        return QosClass.GUARANTEED
    return QosClass.BURSTABLE


def _add(total: dict[str, Fraction], amounts: Mapping[str, Quantity]) -> set[str]:
    """Add the counted, positive amounts to `total`; the names that were added."""
    added = set()
    for name in _COUNTED:
        if name in amounts and (value := quantity.parse(amounts[name])) > 0:
            total[name] = total.get(name, Fraction(0)) + value
            added.add(name)
    return added
