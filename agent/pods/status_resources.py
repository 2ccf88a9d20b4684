"""What a pod's status says of its resources as a whole: what all of its containers together were given.

In: the pod and the statuses of its containers, which know what each was made with. Out: `allocatedResources`, every
request with the pod's overhead, and `resources`, cpu and memory, limits only where each container has one; and the
way back, after a restart of the agent. No I/O.
Source: the API reference, PodStatus; the kubelet tells these since 1.36.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction

from agent.model import quantity
from agent.model.container import Container, ResourceRequirements
from agent.model.meta import Quantity
from agent.model.pod import Pod
from agent.model.status import ContainerStatus
from agent.pods.pod_totals import effective_requests, pod_total, whole_limits, whole_requests

_COUNTED = ("cpu", "memory")
_LEAST_CPU = Fraction(2, 1000)
"""The fewest cpu shares there are: a request so small does not show in the pod's cgroup."""

_Amounts = Callable[[Container], Mapping[str, Quantity]]


def pod_resources(
    pod: Pod, statuses: Iterable[ContainerStatus], now: Pod | None = None
) -> tuple[ResourceRequirements, dict[str, Quantity] | None]:
    """`resources` and `allocatedResources`. Raises ValueError where a quantity cannot be read.

    `now`: the pod with the resources that it has as a whole, while a resize of it goes on.
    """
    made = {status.name: status.resources for status in statuses if status.resources is not None}
    given = {c.name: made.get(c.name, c.resources) for c in (*pod.spec.containers, *pod.spec.initContainers)}
    requests = _totals(pod, lambda container: effective_requests(given[container.name]), everywhere=False)
    limits = _totals(pod, lambda container: given[container.name].limits or {}, everywhere=True)
    overheads = pod.spec.overhead or {}

    def whole(amounts: Mapping[str, Quantity]) -> dict[str, Quantity]:
        parts = {name: (amount, overheads.get(name, 0)) for name, amount in amounts.items()}
        return {name: _written(quantity.parse(a) + quantity.parse(b), (a, b)) for name, (a, b) in parts.items()}

    has = {**requests, **whole(whole_requests(now or pod))}
    requests |= whole(whole_requests(pod))
    limits |= whole(whole_limits(now or pod))
    shown = {name: has[name] for name in _COUNTED if name in has}
    if "cpu" in shown and quantity.parse(shown["cpu"]) <= _LEAST_CPU:
        del shown["cpu"]
    counted = {name: limits[name] for name in _COUNTED if name in limits}
    return ResourceRequirements(limits=counted or None, requests=shown or None), requests or None


def told_whole(pod: Pod, told: ResourceRequirements | None) -> ResourceRequirements | None:
    """Of what the pod itself asks for, as much as its status says that it has: `told` is the `resources` there.

    None told: everything. Raises ValueError where a quantity cannot be read.
    """
    asks, overheads = pod.spec.resources, pod.spec.overhead or {}
    if asks is None or told is None:
        return asks

    def had(amounts: Mapping[str, Quantity] | None, said: Mapping[str, Quantity] | None) -> dict[str, Quantity]:
        found: dict[str, Quantity] = {}
        for name, amount in (amounts or {}).items():
            if name not in _COUNTED or (name == "cpu" and quantity.parse(amount) <= _LEAST_CPU):
                found[name] = amount
            elif (has := (said or {}).get(name)) is not None:
                found[name] = _written(quantity.parse(has) - quantity.parse(overheads.get(name, 0)), (has,))
        return found

    return ResourceRequirements(
        limits=had(asks.limits, told.limits) or None, requests=had(asks.requests, told.requests) or None
    )


def _totals(pod: Pod, amounts: _Amounts, *, everywhere: bool) -> dict[str, Quantity]:
    """`everywhere`: only what each container has, since one without a limit leaves the pod without."""
    containers = (*pod.spec.containers, *pod.spec.initContainers)
    overheads = pod.spec.overhead or {}
    found: dict[str, Quantity] = {}
    for name, total in pod_total(pod, amounts).items():
        each = [amounts(container).get(name, 0) for container in containers]
        if everywhere and not all(map(quantity.parse, each)):
            continue
        overhead = overheads.get(name, 0)
        found[name] = _written(total + quantity.parse(overhead), (*each, overhead))
    return found if everywhere else {**overheads, **found}


def _written(total: Fraction, parts: Iterable[Quantity]) -> Quantity:
    """As it was written where one part is all of it, else in the first part's kind of units."""
    amounts = [part for part in parts if quantity.parse(part)]
    if same := next((part for part in amounts if quantity.parse(part) == total), None):
        return same
    return quantity.canonical(total, binary=bool(amounts) and str(amounts[0]).endswith("i"))
