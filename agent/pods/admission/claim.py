"""What a pod takes of the node: its requests, its host ports, and how much it matters.

In: a pod as it was when it came. Out: one frozen value that can be written into the record, in the units in which the
scheduler compares (millicores, bytes, pieces). Init containers need the most of one moment, sidecars stay beside what
comes after them, overhead comes on top.
Source: the Kubernetes pages "Sidecar Containers" (resource sharing) and "Pod Overhead"; the scheduler's node ports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
from msgspec.structs import replace

from agent.model import quantity
from agent.model.container import Container
from agent.model.meta import Quantity
from agent.model.pod import Pod
from agent.pods.pod_totals import effective_requests, whole_requests
from agent.pods.qos import QosClass, qos_class

SYSTEM_CRITICAL_PRIORITY = 2_000_000_000
"""From here on a pod's priority means that the cluster or the node cannot do without it."""
ANY_IP = "0.0.0.0"

Amounts = dict[str, int]


class HostPort(msgspec.Struct, frozen=True, array_like=True):
    ip: str
    protocol: str
    port: int

    def collides(self, other: HostPort) -> bool:
        same = (self.protocol, self.port) == (other.protocol, other.port)
        return same and (self.ip == other.ip or ANY_IP in (self.ip, other.ip))


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    requests: Amounts = {}
    """Millicores for cpu, bytes or pieces for everything else, rounded up."""
    ports: tuple[HostPort, ...] = ()
    critical: bool = False
    priority: int | None = None
    qos: QosClass = QosClass.BEST_EFFORT

    def beside(self, other: Claim | None) -> Claim:
        """Who is about to have this and has that: what it will give back is not free yet."""
        had = other.requests if other is not None else {}
        most = {name: max(self.requests.get(name, 0), had.get(name, 0)) for name in self.requests.keys() | had.keys()}
        return replace(self, requests=most)


def claim(pod: Pod) -> Claim:
    """Raises ValueError where a quantity cannot be read."""
    priority = pod.spec.priority
    return Claim(
        requests=pod_requests(pod),
        ports=tuple(host_ports(pod)),
        critical=is_critical(pod),
        priority=priority,
        qos=qos_class(pod),
    )


def is_critical(pod: Pod) -> bool:
    """The cluster or the node cannot do without it."""
    priority = pod.spec.priority
    return pod.is_static or (priority is not None and priority >= SYSTEM_CRITICAL_PRIORITY)


def pod_requests(pod: Pod) -> Amounts:
    """The requests of the whole pod. Raises ValueError."""
    total: Amounts = {}
    for container in pod.spec.containers:
        _add(total, _requests(container))
    sidecars: Amounts = {}
    initializing: Amounts = {}
    for container in pod.spec.initContainers:
        own = _requests(container)
        if container.is_sidecar:
            _add(total, own)
            _add(sidecars, own)
            moment = sidecars
        else:
            moment = dict(sidecars)
            _add(moment, own)
        _raise_to(initializing, moment)
    _raise_to(total, initializing)
    total.update(amounts(whole_requests(pod)))
    _add(total, amounts(pod.spec.overhead or {}))
    return {name: amount for name, amount in total.items() if amount}


def amounts(of: Mapping[str, Quantity]) -> Amounts:
    """Quantities in the scheduler's units. Raises ValueError."""
    return {
        name: quantity.ceil_milli(value) if name == "cpu" else quantity.ceil_units(value) for name, value in of.items()
    }


def host_ports(pod: Pod) -> Iterator[HostPort]:
    """The node's ports that the pod holds as long as it runs."""
    for container in (*pod.spec.containers, *(c for c in pod.spec.initContainers if c.is_sidecar)):
        for port in container.ports:
            # On the host's network the container's port is the node's; a manifest has not met the API's default.
            number = port.hostPort or (port.containerPort if pod.spec.hostNetwork else 0)
            if number:
                yield HostPort(port.hostIP or ANY_IP, port.protocol, number)


def _requests(container: Container) -> Amounts:
    return amounts(effective_requests(container.resources))


def _add(total: Amounts, more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _raise_to(total: Amounts, least: Mapping[str, int]) -> None:
    for name, amount in least.items():
        total[name] = max(total.get(name, 0), amount)
