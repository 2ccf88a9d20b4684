"""Resize a pod in place: allocate what is wanted if the node has room, then bring cgroups and containers to it.

In: the pod as it is wanted, the gate, and the pod as the runtime has it. Out: changed limits; the pod's state says what
was allocated, what each container has, and what waits. A container whose policy asks for it is started anew instead.
"""

from __future__ import annotations

import asyncio
from math import ceil

import msgspec
from msgspec.structs import replace

from agent.errors import Conflict, NotFound, Permanent, Retryable
from agent.model import quantity
from agent.model.container import Container, ResourceRequirements
from agent.model.objects import ObjectReference
from agent.model.observed import ObservedContainer, ObservedPod
from agent.model.pod import Pod
from agent.model.record import PodRecord
from agent.model.status import PodStatus
from agent.pods.machine import Machine
from agent.pods.on_disk import on_disk
from agent.pods.pod_state import PodState
from agent.pods.pod_totals import limits_of, pod_limits
from agent.pods.resize import (
    DEFERRED,
    INFEASIBLE,
    Resize,
    differ,
    needs_restart,
    resized,
    same_size,
    whole_changes,
    with_size,
)
from agent.pods.status_resources import told_whole
from agent.pods.translate.resources import container_limits, container_resources

RETRY_S = 3.0
"""A resize that waits for room, or that failed, is tried again so often."""
_STATIC = "In-place resize of static-pods is not supported"


class Resizer:
    """For one pod."""

    def __init__(self, machine: Machine, state: PodState) -> None:
        self._machine = machine
        self._state = state
        self._wanted: Pod = state.pod
        state.whole = state.pod.spec.resources
        self._said: tuple[str, int] = ("", 0)
        self.retry_at: float | None = None
        """Monotonic: when to look again; None: nothing waits."""

    def recall(self, last: PodStatus | None) -> None:
        """After a restart: what runs has what its status told, and what the spec says beyond that is only wanted."""
        state = self._state
        told = {s.name: s for s in last.all_containers if s.state.running and s.resources} if last is not None else {}
        had: list[Container] = []
        for spec in (*state.pod.spec.initContainers, *state.pod.spec.containers):
            if (status := told.get(spec.name)) is not None and status.resources is not None:
                state.sizes[status.containerID.rpartition("//")[2]] = status.resources
                given = ResourceRequirements(limits=status.resources.limits, requests=status.allocatedResources)
                had.append(msgspec.structs.replace(spec, resources=given))
        if last is not None and had:
            state.whole = told_whole(state.pod, last.resources)
        ran = msgspec.structs.replace(state.pod.spec, containers=tuple(had), initContainers=(), resources=state.whole)
        before = with_size(state.pod, msgspec.structs.replace(state.pod, spec=ran))
        if before is not state.pod:
            state.record = replace(state.record, pod=before)
            self.allocate()

    def note(self, observed: ObservedPod) -> None:
        """What was made has what its spec said then."""
        sizes = self._state.sizes
        for container in observed.containers:
            if container.id not in sizes and (spec := self._state.container(container.name)) is not None:
                sizes[container.id] = resized(spec)
        for gone in sizes.keys() - {container.id for container in observed.containers}:
            del sizes[gone]

    def want(self, record: PodRecord) -> bool:
        """The pod changed: it stays with the resources that are allocated. Whether a resize began, waits or is off."""
        before = self._state.resize
        self._wanted = record.pod
        self._state.record = replace(record, pod=with_size(record.pod, self._state.pod))
        self.allocate()
        return self._state.resize != before

    def allocate(self) -> None:
        """Give the pod what it wants, if there is room."""
        state = self._state
        if same_size(self._wanted, state.pod):
            state.resize = replace(state.resize, pending="", pending_message="")
            self._machine.gate.keep_size(state.pod.uid)
            return
        if state.pod.is_static:
            against: tuple[str, str] | None = (INFEASIBLE, _STATIC)
        else:
            against = self._machine.gate.resize(self._wanted)
        if against is not None:
            reason, message = against
            state.resize = replace(state.resize, pending=reason, pending_message=message)
            self.retry_at = self._machine.monotonic() + RETRY_S if reason == DEFERRED else None
            self._say("Warning", f"Resize{reason}", f"Pod resize {reason}", message)
            return
        state.record = replace(state.record, pod=with_size(state.pod, self._wanted))
        state.resize = Resize(in_progress=True)
        self.retry_at = None
        self._say("Normal", "ResizeStarted", "Pod resize started")

    async def perform(self, observed: ObservedPod) -> None:
        """Bring what runs to what is allocated; what fails is told and tried again. Raises Retryable: no runtime."""
        state = self._state
        now = self._machine.monotonic()
        if self.retry_at is not None and now < self.retry_at:
            return
        self.retry_at = None
        if state.resize.pending == DEFERRED:
            self.allocate()
        if not state.resize.in_progress:
            return
        before = state.pod
        changes = self._changes(observed)
        try:
            await self._actuate(changes)
        except (Permanent, NotFound, Conflict, Retryable) as error:
            state.resize = replace(state.resize, error=str(error))
            self.retry_at = self._machine.monotonic() + RETRY_S
            self._say("Warning", "ResizeError", "Pod resize error", str(error))
            return
        state.whole = before.spec.resources
        if state.outgrown or not same_size(state.pod, before):
            return
        state.resize = replace(state.resize, in_progress=False, error="")
        self._say("Normal", "ResizeCompleted", "Pod resize completed")

    def _changes(self, observed: ObservedPod) -> list[tuple[ObservedContainer, frozenset[str]]]:
        """Who runs with other resources than the pod has now; who is to start anew for it is noted apart."""
        state = self._state
        state.outgrown &= {running.id for running in observed.running}
        inherited = whole_changes(state.pod, state.whole)
        changes: list[tuple[ObservedContainer, frozenset[str]]] = []
        for running in observed.running:
            spec, has = state.container(running.name), state.sizes.get(running.id)
            if spec is None or has is None:
                continue
            own = {name for name, amount in limits_of(spec).items() if quantity.parse(amount)}
            if not (changed := differ(spec, has) | (inherited - own)):
                continue
            if needs_restart(spec, changed):
                state.outgrown.add(running.id)
            else:
                changes.append((running, changed))
        return changes

    async def _actuate(self, changes: list[tuple[ObservedContainer, frozenset[str]]]) -> None:
        """What grows must find room in the pod's cgroup, what shrinks leaves it first."""
        state, machine = self._state, self._machine
        pod = state.pod
        await self._check_memory(changes)
        burstable = machine.gate.burstable_milli_cpu()
        with on_disk("cannot resize the pod's cgroup"):
            await asyncio.to_thread(machine.cgroups.widen_pod, pod, burstable)
        for running, _ in changes:
            spec = state.container(running.name)
            assert spec is not None, "it was found a moment ago"
            linux = container_resources(pod, spec, machine.translate_for(pod.uid))
            await machine.runtime.update_container_resources(running.id, linux)
            state.sizes[running.id] = resized(spec)
        if state.outgrown:
            return
        with on_disk("cannot resize the pod's cgroup"):
            await asyncio.to_thread(machine.cgroups.set_pod, pod)

    async def _check_memory(self, changes: list[tuple[ObservedContainer, frozenset[str]]]) -> None:
        """A limit below what is in use would have the kernel end processes. Raises Permanent."""
        state, machine = self._state, self._machine
        faults = []
        limit = ceil(pod_limits(state.pod).get("memory", 0))
        used, has = await asyncio.to_thread(machine.cgroups.memory, state.pod)
        if limit and used >= limit < has:
            faults.append(f"attempting to set pod memory limit ({limit}) below current usage ({used})")
        for running, changed in changes:
            spec = state.container(running.name)
            if spec is None or "memory" not in changed:
                continue
            own = quantity.ceil_units(container_limits(state.pod, spec).get("memory", 0))
            before = quantity.ceil_units((state.sizes[running.id].limits or {}).get("memory", 0))
            if not own or 0 < before <= own:
                continue
            stats = await machine.runtime.container_stats(running.id)
            uses = stats.memory.usage_bytes.value
            if uses >= own:
                faults.append(
                    f'attempting to set container "{spec.name}" memory limit ({own}) below current usage ({uses})'
                )
        if faults:
            raise Permanent("", f"[{', '.join(faults)}]" if len(faults) > 1 else faults[0])

    def _say(self, kind: str, reason: str, what: str, error: str = "") -> None:
        """Once for each change of the pod."""
        pod, generation = self._wanted, self._wanted.metadata.generation
        if self._said == (reason, generation):
            return
        self._said = (reason, generation)
        summary = {
            **{
                part: [{"name": c.name, "resources": msgspec.to_builtins(c.resources)} for c in getattr(pod.spec, part)]
                for part, containers in (
                    ("initContainers", pod.spec.initContainers),
                    ("containers", pod.spec.containers),
                )
                if getattr(pod.spec, part)
            },
            "generation": generation,
            **({"error": error} if error else {}),
        }
        text = msgspec.json.encode(summary).decode()
        self._machine.events.record(ObjectReference.of(self._state.pod), kind, reason, f"{what}: {text}")
