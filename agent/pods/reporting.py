"""Tell what a pod's status is, once it is another one, and of its back-offs. For one pod's worker.

In: the pod as observed, what is known of it, and what is to be done next. Out: PodUpdates and events. While actions are
under way a status waits for a better one, but for what probes find meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager

from agent.model.action import Action, KillContainer, RemoveContainer, RemoveSandbox, StopSandbox
from agent.model.objects import ObjectReference
from agent.model.observed import ObservedPod
from agent.model.status import PodStatus
from agent.pods.container_status import entered_backoff
from agent.pods.knowledge import Health, Knowledge
from agent.pods.machine import Machine
from agent.pods.plan import Plan
from agent.pods.pod_state import PodState
from agent.pods.status import StatusContext, differs_beyond_generation, pod_status
from agent.providers.contract import PodUpdate
from agent.rush import LONGEST_HOLD_S

SETTLE_S = 2.0
"""While actions are under way a better status is expected within this time."""
RUSH_SETTLE_S = LONGEST_HOLD_S
"""The same while pods queue for their start."""


class Reporter:
    def __init__(
        self, machine: Machine, state: PodState, updated: Callable[[PodUpdate], None], last: PodStatus | None
    ) -> None:
        """`last` is the status that the record holds of the pod from before a restart."""
        self._machine = machine
        self._state = state
        self._updated = updated
        self._last = last
        self._told = False
        self._performing_on: ObservedPod | None = None
        self._health_told: dict[str, Health | None] = {}
        """While actions are performed."""

    @property
    def last(self) -> PodStatus | None:
        """The status last reported."""
        return self._last

    @property
    def has_ended(self) -> bool:
        """The pod, by that status."""
        return self._last is not None and self._last.phase.is_terminal

    def report(self, observed: ObservedPod, knows: Knowledge, decided: Plan, *, gone: bool) -> None:
        """Tell a status that changed; while actions are to follow, only if nothing better comes soon."""
        before, status = self._last, self._status_of(observed, knows)
        if status == before and self._told and not gone:
            return
        self._say_backoffs(status)
        self._last = status
        told, self._told = self._told, True
        dead = {sandbox.id for sandbox in observed.sandboxes if not sandbox.ready}
        busy = not all(_clears_away(action, dead) for action in decided.actions)
        killing = any(isinstance(a, KillContainer) for a in decided.actions)
        # Deleting a pod makes a new generation of it: where nothing else is new, its end is told soon enough.
        news = not told or before is None or differs_beyond_generation(before, status)
        settle = 0.0
        if busy and not (killing and news):
            settle = RUSH_SETTLE_S if self._machine.starts.rush else SETTLE_S
        self._updated(PodUpdate(self._state.record, status, gone=gone, settle_s=settle))

    @contextmanager
    def performing(self, observed: ObservedPod) -> Iterator[None]:
        """Actions on the pod are under way: until they are done `tell_health` is not idle."""
        self._performing_on, self._health_told = observed, self._health_of(observed)
        try:
            yield
        finally:
            self._performing_on = None

    def tell_health(self) -> None:
        """An action may take long (a stop all of its grace): what probes find meanwhile is told all the same."""
        if (observed := self._performing_on) is None or self._health_told == (health := self._health_of(observed)):
            return
        self._health_told = health
        knows = self._state.knowledge(self._machine.prober.health(observed.uid), ended=self.has_ended)
        self.report(observed, knows, Plan(), gone=False)

    def _health_of(self, observed: ObservedPod) -> dict[str, Health | None]:
        """What probes say of the containers that ran when the runtime was last read."""
        health = self._machine.prober.health(observed.uid)
        return {container.id: health.get(container.id) for container in observed.running}

    def _status_of(self, observed: ObservedPod, knows: Knowledge) -> PodStatus:
        machine, record = self._machine, self._state.record
        context = StatusContext(
            machine.node.host_ips,
            machine.wall(),
            machine.monotonic(),
            recursive_read_only=machine.translate.recursive_read_only,
            devices=machine.devices.health(record.uid) if machine.devices is not None else {},
        )
        return pod_status(record.pod, observed, knows, self._last, context)

    def _say_backoffs(self, status: PodStatus) -> None:
        pod = self._state.pod
        meta = pod.metadata
        for name in entered_backoff(self._last, status):
            about = ObjectReference.of(pod, f"spec.{pod.spec.part_of(name)}{{{name}}}")
            message = f"Back-off restarting failed container {name} in pod {meta.name}_{meta.namespace}({meta.uid})"
            self._machine.events.record(about, "Warning", "BackOff", message)


def _clears_away(action: Action, dead: Set[str]) -> bool:
    """Nothing that a status tells of comes of it."""
    return isinstance(action, RemoveContainer | RemoveSandbox) or (
        isinstance(action, StopSandbox) and action.sandbox_id in dead
    )
