"""What an evicted pod, its event and the event's annotations say: the words that tools and people search for.

In: the threshold, what was available, the pod and what it used. Out: texts. Pure. Each sentence ends with a space, as
a kubelet writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from agent.model import quantity
from agent.model.pod import Pod
from agent.node.eviction.signals import Observations, Resource
from agent.node.eviction.thresholds import Threshold
from agent.pods.pod_totals import effective_requests
from agent.stats.figures import ContainerFigures, PodFigures

STARVED = "starved_resource"
OFFENDING = "offending_containers"
OFFENDING_USAGE = "offending_containers_usage"
OFFENDING_POD = "offending_pod"
OFFENDING_POD_USAGE = "offending_pod_usage"


def eviction_message(
    pod: Pod, figures: PodFigures | None, crossed: tuple[Threshold, ...], seen: Observations
) -> tuple[str, dict[str, str]]:
    """Message and annotations. `crossed` are all thresholds that are, first the one that the pod goes for."""
    resource = crossed[0].resource
    message = f"The node was low on resource: {resource}. " + _threshold(resource, crossed, seen)
    if figures is None:
        return message, {}
    annotations: dict[str, str] = {}
    whole = (pod.spec.resources.requests or {}).get(resource) if pod.spec.resources is not None else None
    if resource is Resource.MEMORY and whole is not None and figures.usage is not None:
        name, using = pod.metadata.name, _bytes(figures.usage.working_set_bytes)
        message += f"Pod {name} was using {using}, request is {quantity.spelled(whole)}, {_larger(resource)}"
        annotations |= {OFFENDING_POD: name, OFFENDING_POD_USAGE: using}
    over = tuple(_over_request(pod, figures, resource))
    for name, using, request in over:
        message += f"Container {name} was using {using}, request is {request}, {_larger(resource)}"
    return message, annotations | {
        OFFENDING: ",".join(name for name, _, _ in over),
        OFFENDING_USAGE: ",".join(using for _, using, _ in over),
        STARVED: resource,
    }


def _bytes(number: int) -> str:
    return quantity.canonical(Fraction(number), binary=True)


def _threshold(resource: Resource, crossed: tuple[Threshold, ...], seen: Observations) -> str:
    for one in crossed:
        if one.resource is resource and (observed := seen.get(one.signal)) is not None:
            least = one.amount.spelled(observed.capacity)
            binary = resource in (Resource.MEMORY, Resource.DISK)
            left = quantity.canonical(Fraction(observed.available), binary=binary)
            return f"Threshold quantity: {least}, available: {left}. "
    return ""


def _larger(resource: Resource) -> str:
    return f"has larger consumption of {resource}. "


def _over_request(pod: Pod, figures: PodFigures, resource: Resource) -> Iterator[tuple[str, str, str]]:
    """(container, what it uses, what it asked for) of containers that use more."""
    specs = {one.name: one for one in (*pod.spec.initContainers, *pod.spec.containers)}
    for container in figures.containers:
        using = _using(container, resource)
        if using is None or container.name not in specs:
            continue
        request = effective_requests(specs[container.name].resources).get(resource, 0)
        if using > quantity.parse(request):
            yield container.name, _bytes(using), quantity.spelled(request)


def _using(container: ContainerFigures, resource: Resource) -> int | None:
    if resource is Resource.MEMORY:
        return container.usage.working_set_bytes
    if resource is Resource.DISK and container.writable is not None and container.log is not None:
        return container.writable.used_bytes + container.log.used_bytes
    return None
