"""The containerd provider starts containers anew that have filled their disk, where their pods' policy says so.

In: the pods' workers with their policies, what the runtime says of containers' file systems, and the disk that holds
them, every ten seconds while any pod has the policy. Out: containers renewed by their workers, each told by an event.
One that fills its disk again and again is renewed at growing intervals, as one that crashes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

from loguru import logger

from agent.cri.runtime import RuntimeClient
from agent.errors import Permanent, Retryable
from agent.model import quantity
from agent.model.objects import ObjectReference
from agent.model.observed import ObservedContainer
from agent.pods.backoff import Backoff, raised, ready_at
from agent.pods.container_status import RESTART_ON_DISK
from agent.pods.disk_restart import Layer, fullest, over_limit
from agent.pods.garbage.image_collector import Room
from agent.pods.machine import Machine
from agent.pods.pod_totals import limits_of
from agent.pods.restart import restarts_when_killed
from agent.pods.worker import PodWorker

LOOK_S = 10.0
"""As often as the runtime looks at what containers write."""
CALM_S = 30.0
"""After a restart for a full disk: so long the runtime may take to give the room back."""


class DiskRestarts:
    def __init__(
        self,
        machine: Machine,
        runtime: RuntimeClient,
        workers: Callable[[], Iterable[PodWorker]],
        room: Callable[[], Awaitable[Room]],
    ) -> None:
        """`room`: of the file system that holds what containers write; raises Retryable, Permanent."""
        self._machine = machine
        self._runtime = runtime
        self._workers = workers
        self._room = room
        self._backoffs: dict[tuple[str, str], Backoff] = {}
        """By pod's UID and container's name; raised with each restart."""
        self._calm_until = 0.0

    async def run(self) -> None:
        """For as long as the provider runs."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except (Retryable, Permanent) as error:
                logger.debug("what containers wrote is not known: {}", error)

    async def look(self) -> None:
        """Once. Raises Retryable, Permanent."""
        asked = list(self._asked())
        here = {worker.record.uid for worker, _ in asked}
        self._backoffs = {key: held for key, held in self._backoffs.items() if key[0] in here}
        if not asked:
            return
        used = {
            stats.attributes.id: stats.writable_layer.used_bytes.value
            for stats in await self._runtime.list_container_stats()
        }
        layers = [layer for one in asked for layer in self._layers(one, used)]
        workers = {worker.record.uid: worker for worker, _ in asked}
        for layer, why in over_limit(layers):
            self._renew(workers[layer.uid], layer, why)
        now = self._machine.monotonic()
        if now < self._calm_until or any(worker.is_renewing for worker, _ in asked):
            return
        chosen = fullest(layers, await self._room())
        if chosen is not None:
            self._renew(workers[chosen[0].uid], *chosen)
            self._calm_until = now + CALM_S

    def _asked(self) -> Iterator[tuple[PodWorker, int]]:
        """The active pods with the policy, and the percentage of each."""
        for worker in list(self._workers()):
            percent = self._machine.policing.of(worker.record.pod).restart_on_disk
            if percent is not None and worker.is_active:
                yield worker, percent

    def _layers(self, asked: tuple[PodWorker, int], used: Mapping[str, int]) -> Iterator[Layer]:
        """Of containers that are to run on: an init container ends by itself, and Never means it."""
        worker, percent = asked
        pod = worker.record.pod
        specs = {c.name: c for c in (*pod.spec.containers, *(c for c in pod.spec.initContainers if c.is_sidecar))}
        for container in () if worker.is_renewing else worker.observed.running:
            spec = specs.get(container.name)
            if spec is None or container.id not in used or not restarts_when_killed(pod, spec):
                continue
            if self._may(pod.uid, container):
                limit = quantity.ceil_units(limits_of(spec).get("ephemeral-storage", 0))
                yield Layer(pod.uid, container.name, container.id, used[container.id], percent, limit)

    def _may(self, uid: str, container: ObservedContainer) -> bool:
        held = self._backoffs.get((uid, container.name))
        return held is None or self._machine.monotonic() >= ready_at(held, held.updated_at)

    def _renew(self, worker: PodWorker, layer: Layer, why: str) -> None:
        pod, key, now = worker.record.pod, (layer.uid, layer.name), self._machine.monotonic()
        self._backoffs[key] = raised(self._backoffs.get(key), now, now)
        about = ObjectReference.of(pod, f"spec.{pod.spec.part_of(layer.name)}{{{layer.name}}}")
        message = f"Container {layer.name} is restarted: {why}"
        self._machine.events.record(about, "Warning", RESTART_ON_DISK, message)
        worker.renew(layer.container_id, why[0].upper() + why[1:])
