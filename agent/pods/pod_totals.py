"""What a pod asks for as a whole: the sum of its containers, and above it what `spec.resources` says of the pod itself.

In: the pod. Out: requests and limits by resource, exact, in base units (cores, bytes). Only cpu, memory and huge pages
can be asked for by the pod as a whole, and there its word stands before the sum. Raises ValueError where a quantity
cannot be read.
Source: the Kubernetes pages "Resource Management for Pods and Containers", "Sidecar Containers" and "Pod Overhead".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction

from agent.model import quantity
from agent.model.container import Container, ResourceRequirements
from agent.model.meta import Quantity
from agent.model.pod import Pod

Amounts = Callable[[Container], Mapping[str, Quantity]]
Totals = dict[str, Fraction]

HUGEPAGES = "hugepages-"


def effective_requests(resources: ResourceRequirements) -> Mapping[str, Quantity]:
    """Requests, each unset one taken from its limit: the API server's default, which a manifest has not seen."""
    return {**(resources.limits or {}), **(resources.requests or {})}


def limits_of(container: Container) -> Mapping[str, Quantity]:
    return container.resources.limits or {}


def requests_of(container: Container) -> Mapping[str, Quantity]:
    return effective_requests(container.resources)


def whole_limits(pod: Pod) -> Mapping[str, Quantity]:
    """Limits of the pod itself; empty where it names none."""
    return _of_a_pod((pod.spec.resources.limits if pod.spec.resources else None) or {})


def whole_requests(pod: Pod) -> Mapping[str, Quantity]:
    """Requests of the pod itself; of what it only limits: what its containers request together, else the limit."""
    if pod.spec.resources is None:
        return {}
    asked = _of_a_pod(pod.spec.resources.requests or {})
    unsaid = {name: limit for name, limit in whole_limits(pod).items() if name not in asked}
    summed = pod_total(pod, requests_of) if unsaid else {}
    for name, limit in unsaid.items():
        asked[name] = quantity.canonical(summed[name], binary=name != "cpu") if name in summed else limit
    return asked


def pod_requests(pod: Pod, *, overhead: bool = True) -> Totals:
    found = pod_total(pod, requests_of) | parsed(whole_requests(pod))
    return total((found, parsed(pod.spec.overhead or {}))) if overhead else found


def pod_limits(pod: Pod, *, overhead: bool = True) -> Totals:
    """Overhead is added to what has a limit."""
    found = pod_total(pod, limits_of) | parsed(whole_limits(pod))
    extra = parsed(pod.spec.overhead or {}) if overhead else {}
    return {name: value + (extra.get(name, Fraction(0)) if value else 0) for name, value in found.items()}


def has_limit(pod: Pod, name: str) -> bool:
    """Whether the pod is limited in this as a whole: by its own word, or because each of its containers is."""
    if quantity.parse(whole_limits(pod).get(name, 0)):
        return True
    sidecars = Fraction(0)
    for container in pod.spec.initContainers:
        own = quantity.parse(limits_of(container).get(name, 0))
        sidecars += own if container.is_sidecar else 0
        if not own and not sidecars:
            return False
    return all(quantity.parse(limits_of(container).get(name, 0)) for container in pod.spec.containers)


def pod_total(pod: Pod, amounts: Amounts) -> Totals:
    """The most that the pod's containers hold at one time.

    Sidecars run beside everything that starts after them; another init container runs only with the sidecars before it.
    """
    sidecars: Totals = {}
    highest_init: Totals = {}
    for container in pod.spec.initContainers:
        together = total((sidecars, parsed(amounts(container))))
        if container.is_sidecar:
            sidecars = together
        highest_init = _highest(highest_init, together)
    running = total((sidecars, *(parsed(amounts(container)) for container in pod.spec.containers)))
    return _highest(running, highest_init)


def parsed(amounts: Mapping[str, Quantity]) -> Totals:
    return {name: quantity.parse(amount) for name, amount in amounts.items()}


def total(lists: Iterable[Mapping[str, Fraction]]) -> Totals:
    summed: Totals = {}
    for amounts in lists:
        for name, value in amounts.items():
            summed[name] = summed.get(name, Fraction(0)) + value
    return summed


def _highest(one: Mapping[str, Fraction], other: Mapping[str, Fraction]) -> Totals:
    return {name: max(one.get(name, Fraction(0)), other.get(name, Fraction(0))) for name in {**one, **other}}


def _of_a_pod(amounts: Mapping[str, Quantity]) -> dict[str, Quantity]:
    return {name: value for name, value in amounts.items() if name in ("cpu", "memory") or name.startswith(HUGEPAGES)}
