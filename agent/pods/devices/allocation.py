"""Decide which devices a container gets, and put together what it gets with them. Pure.

In: what each container asks of a resource, what the plugin has and what others hold. Out: device ids, or why there are
none, in the kubelet's words. What an init container has had, the pod's later containers have again; a sidecar keeps its
own. Reasons and messages are the kubelet's (its device manager, with the topology policy none).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from enum import StrEnum
from typing import NoReturn

import msgspec

from agent.errors import Permanent
from agent.model import quantity
from agent.model.container import Container
from agent.model.devices import UNEXPECTED, Device, DeviceMount, DeviceNode, DeviceSettings, GivenDevice, Grant
from agent.model.pod import Pod


class Role(StrEnum):
    INIT = "init"
    """It ends before the next container begins."""
    SIDECAR = "sidecar"
    MAIN = "main"


class Wanted(msgspec.Struct, frozen=True):
    container: str
    resource: str
    count: int
    role: Role = Role.MAIN


class Stock(msgspec.Struct, frozen=True):
    """One resource as its plugin last told of it."""

    healthy: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    """By any container of any pod."""
    registered: bool = True


class Choice(msgspec.Struct, frozen=True):
    """What is settled, and what is left to choose from."""

    taken: tuple[str, ...]
    """From the pod's init containers."""
    needed: int = 0
    """How many more, of `free`."""
    free: frozenset[str] = frozenset()


Reusable = dict[str, frozenset[str]]
"""By resource: what init containers of the pod had."""


def wanted_by(pod: Pod, is_device: Callable[[str], bool]) -> Iterator[Wanted]:
    """In the order in which the containers run. Raises ValueError where a quantity cannot be read."""
    for container in pod.spec.initContainers:
        yield from wanted_by_container(container, is_device, Role.SIDECAR if container.is_sidecar else Role.INIT)
    for container in pod.spec.containers:
        yield from wanted_by_container(container, is_device)


def wanted_by_container(
    container: Container, is_device: Callable[[str], bool], role: Role = Role.MAIN
) -> Iterator[Wanted]:
    """By its limits: the API lets nobody ask for more of such a resource than its limit. Raises ValueError."""
    for name, amount in sorted((container.resources.limits or {}).items()):
        if "/" in name and is_device(name) and (count := quantity.ceil_units(amount)) > 0:
            yield Wanted(container.name, name, count, role)


def choose(wanted: Wanted, pod_uid: str, mine: frozenset[str] | None, reusable: frozenset[str], stock: Stock) -> Choice:
    """`mine`: what the container has from before. Raises Permanent, its text without the words around it."""
    resource = wanted.resource
    if mine is not None and len(mine) != wanted.count:
        _refuse(
            f'pod "{pod_uid}" container "{wanted.container}" changed request for resource "{resource}" '
            f"from {len(mine)} to {wanted.count}"
        )
    if not stock.registered:
        _refuse(f"cannot allocate unregistered device {resource}")
    if not stock.healthy:
        _refuse(f"no healthy devices present; cannot allocate unhealthy devices {resource}")
    if mine is not None:
        if not mine <= stock.healthy:
            _refuse(f"previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}")
        return Choice(tuple(sorted(mine)))
    taken = tuple(sorted(reusable & stock.healthy))[: wanted.count]
    needed = wanted.count - len(taken)
    free = stock.healthy - stock.held
    if len(free) < needed:
        _refuse(f"requested number of devices unavailable for {resource}. Requested: {needed}, Available: {len(free)}")
    return Choice(taken, needed, free)


def complete(choice: Choice, preferred: Collection[str] = ()) -> tuple[str, ...]:
    """What the plugin would rather give first, then in order of the ids."""
    wishes = [one for one in dict.fromkeys(preferred) if one in choice.free]
    rest = sorted(choice.free.difference(wishes))
    return (*choice.taken, *[*wishes, *rest][: choice.needed])


def reusable_after(wanted: Wanted, ids: Iterable[str], reusable: Reusable) -> Reusable:
    """What the pod's next containers may have again, once this one has these devices."""
    before = reusable.get(wanted.resource, frozenset())
    now = before.union(ids) if wanted.role is Role.INIT else before.difference(ids)
    return {**reusable, wanted.resource: now}


def given(ids: Iterable[str], known: dict[str, Device]) -> tuple[GivenDevice, ...]:
    return tuple(GivenDevice(one, known[one].numa if one in known else ()) for one in ids)


def merged(grants: Iterable[Grant]) -> DeviceSettings:
    """All that one container gets; of two settings of one name or path the first counts."""
    env: dict[str, str] = {}
    annotations: dict[str, str] = {}
    mounts: dict[str, DeviceMount] = {}
    nodes: dict[str, DeviceNode] = {}
    cdi: dict[str, None] = {}
    for settings in (grant.settings for grant in grants):
        env = {**settings.env, **env}
        annotations = {**settings.annotations, **annotations}
        mounts = {**{one.container_path: one for one in settings.mounts}, **mounts}
        nodes = {**{one.container_path: one for one in settings.nodes}, **nodes}
        cdi.update(dict.fromkeys(settings.cdi))
    return DeviceSettings(env, tuple(mounts.values()), tuple(nodes.values()), annotations, tuple(cdi))


def admission_message(why: str) -> str:
    """What is said of a pod that was refused for its devices."""
    return f"Allocate failed due to {why}, which is unexpected"


def _refuse(why: str) -> NoReturn:
    raise Permanent(UNEXPECTED, why)
