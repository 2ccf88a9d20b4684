"""The policies of the node's pods, as they are now: each pod's own, under the defaults that hold on this node.

In: pods, and the defaults whenever they change. Out: `Policies`, faults as events on their pod, each once, and a call
to whoever has to look at all pods again. Values are worked out once and kept until something they come from changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec

from agent.model.objects import ObjectReference
from agent.model.pod import Pod
from agent.pods.ports import Events
from agent.policies.defaults import NO_DEFAULTS, Defaults
from agent.policies.pod import Policies, policies_of
from agent.policies.policy import Fault
from agent.said_once import SaidOnce

INVALID = "InvalidPolicy"
"""The reason of an event on a pod, or on the Node, about a policy that does not count."""


class _Made(msgspec.Struct, frozen=True):
    generation: int
    annotations: Mapping[str, str] | None
    labels: Mapping[str, str] | None
    policies: Policies
    faults: SaidOnce[Fault]


class Policing:
    def __init__(
        self, events: Events | None = None, defaults: Defaults = NO_DEFAULTS, host_namespaces: Collection[str] = ()
    ) -> None:
        """`events`: None says faults to nobody."""
        self._events = events
        self._defaults = defaults
        self._host_namespaces = host_namespaces
        self._generation = 0
        self._made: dict[str, _Made] = {}
        self._listeners: list[Callable[[], None]] = []

    def of(self, pod: Pod) -> Policies:
        """What holds for the pod now. Cheap to ask again and again."""
        meta, before = pod.metadata, self._made.get(pod.uid)
        if (
            before is not None
            and before.generation == self._generation
            and before.annotations == meta.annotations
            and before.labels == meta.labels
        ):
            return before.policies
        policies, found = policies_of(pod, self._defaults, self._host_namespaces)
        faults = SaidOnce[Fault]() if before is None else before.faults
        self._made[pod.uid] = _Made(self._generation, meta.annotations, meta.labels, policies, faults)
        if self._events is not None:
            for fault in faults.new(found):
                self._events.record(ObjectReference.of(pod), "Warning", INVALID, str(fault))
        return policies

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._made.pop(uid, None)

    def notify(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever the defaults are others: what holds for any pod may be another."""
        self._listeners.append(changed)

    def take(self, defaults: Defaults) -> None:
        """These hold from now on."""
        if defaults == self._defaults:
            return
        self._defaults = defaults
        self._generation += 1
        for changed in self._listeners:
            changed()
