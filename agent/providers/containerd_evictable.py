"""The containerd provider's pods as eviction sees them: what they use and wrote, and how one is ended for good.

In: the workers, and the runtime once it answers. Out: figures and ends. A runtime that is away costs what only it
knows, never an eviction for want of memory: those figures are the kernel's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec
from loguru import logger

from agent.config import Settings
from agent.cri.images import ImageClient
from agent.cri.runtime import RuntimeClient
from agent.errors import NotFound, Permanent, Retryable
from agent.model.pod import Pod
from agent.node.eviction.limits import limits_written
from agent.node.eviction.ports import Eviction, Reclaimer
from agent.node.eviction.signals import Resource
from agent.pods.admission.gate import Gate, Verdict
from agent.pods.admission.pressure import EVICTED
from agent.pods.cgroups import kubepods_path
from agent.pods.machine import Machine
from agent.pods.worker import PodWorker

if TYPE_CHECKING:  # a node that never runs short need not hold the code
    from agent.stats.figures import PodFigures, Subject, Taken
    from agent.stats.reader import Reader
    from agent.stats.storage import LocalStorage, StorageReader

ASK_S = 60.0
"""Where images are changes with the runtime's configuration only."""
RUNTIME_S = 10.0
SHORTLY_S = 2.0
RANK_S = 30.0
"""What pods have on disk is counted for so long, before one of them has to go: a full disk does not wait."""


class RuntimeParts(msgspec.Struct, frozen=True):
    machine: Machine
    runtime: RuntimeClient
    images: ImageClient


class ContainerdEvictable:
    """Fits `agent.node.eviction.ports.EvictablePods`."""

    def __init__(
        self,
        settings: Settings,
        workers: Mapping[str, PodWorker],
        gate: Gate,
        parts: Callable[[], RuntimeParts | None],
        reclaimer: Reclaimer,
    ) -> None:
        """`parts` gives None until the runtime has answered once."""
        self._settings = settings
        self._workers = workers
        self._gate = gate
        self._parts = parts
        self._reclaimer = reclaimer
        self._image_dir: Path | None = None
        self._asked_at: float | None = None
        self._reader: Reader | None = None
        self._storage: StorageReader | None = None

    @property
    def cgroup(self) -> PurePosixPath | None:
        parts = self._parts()
        return None if parts is None else kubepods_path(parts.machine.cgroups.driver, parts.machine.cgroups.root)

    async def image_dir(self) -> Path | None:
        now = time.monotonic()
        parts = self._parts()
        if parts is None or (self._asked_at is not None and now - self._asked_at < ASK_S):
            return self._image_dir
        # Also where it does not answer: memory, which nobody but the kernel is asked for, waits behind this.
        self._asked_at = now
        try:
            async with asyncio.timeout(SHORTLY_S):
                found = await parts.images.image_fs_info()
        except (Retryable, Permanent, TimeoutError) as error:
            logger.debug("the runtime does not say where images are: {}", error)
            return self._image_dir
        self._image_dir = next((Path(one.fs_id.mountpoint) for one in found.image_filesystems), self._image_dir)
        return self._image_dir

    def active(self) -> Sequence[Pod]:
        return tuple(worker.record.pod for worker in self._workers.values() if worker.is_active)

    async def figures(self, resource: Resource) -> Mapping[str, PodFigures]:
        if (parts := self._parts()) is None:
            return {}
        from agent.stats.figures import Subject, Taken
        from agent.stats.reader import Depth, Reader

        depth = {Resource.MEMORY: Depth.USAGE, Resource.PIDS: Depth.DETAILS}.get(resource, Depth.DISKS)
        if self._reader is None:
            cgroups, root = parts.machine.cgroups, self._settings.root_dir.absolute()
            self._reader = Reader(cgroups.driver, cgroups.root, root, parts.machine.log_files)
        active = [worker for worker in self._workers.values() if worker.is_active]
        subjects = [Subject(one.record.pod, one.observed, one.volumes) for one in active]
        written: dict[str, Taken] = {}
        if depth >= Depth.DISKS:
            try:
                async with asyncio.timeout(RUNTIME_S):
                    stats = await parts.runtime.list_container_stats()
            except (Retryable, Permanent, TimeoutError) as error:
                logger.warning("pods are ranked without what their containers wrote: {}", error)
            else:
                for one in stats:
                    layer = one.writable_layer
                    written[one.attributes.id] = Taken(layer.used_bytes.value, layer.inodes_used.value)
        shallow = await asyncio.to_thread(self._reader.read, subjects, min(depth, Depth.DETAILS))
        found = {pod.uid: pod for pod in shallow.pods}
        if depth >= Depth.DISKS:
            await self._count(self._reader, subjects, written, found)
        return found

    async def _count(
        self, reader: Reader, subjects: Sequence[Subject], written: Mapping[str, Taken], found: dict[str, PodFigures]
    ) -> None:
        """Put what is on disk into the figures; a pod that takes too long to count is taken for a large one."""
        from agent.stats.reader import Depth

        over = time.monotonic() + RANK_S
        for subject in subjects:
            try:
                async with asyncio.timeout(max(0.0, over - time.monotonic())):
                    reading = await asyncio.to_thread(reader.read, [subject], Depth.DISKS, written)
            except TimeoutError:
                logger.warning("what pod {} has on disk takes too long to count", subject.pod.full_name)
                found.pop(subject.pod.uid, None)
                # Its thread goes on and is nobody's any more.
                self._reader = None
                return
            found.update((pod.uid, pod) for pod in reading.pods)

    async def storage(self, pods: Sequence[Pod]) -> Mapping[str, LocalStorage]:
        if (parts := self._parts()) is None:
            return {}
        if self._storage is None:
            from agent.stats.storage import StorageReader

            self._storage = StorageReader(self._settings.root_dir.absolute(), parts.machine.log_files)
        written = {pod.uid: await self._written(parts, pod.uid) for pod in pods if limits_written(pod)}
        return await asyncio.to_thread(self._storage.read, pods, written)

    def evict(self, uid: str, eviction: Eviction) -> None:
        self._gate.evict(
            uid,
            Verdict(
                EVICTED,
                eviction.message,
                evicted=True,
                grace_s=eviction.grace_s,
                disruption=eviction.disruption,
            ),
        )

    def is_down(self, uid: str) -> bool:
        worker = self._workers.get(uid)
        return worker is None or worker.is_down

    async def reclaim(self) -> None:
        await self._reclaimer.reclaim()

    async def _written(self, parts: RuntimeParts, uid: str) -> dict[str, int]:
        """By container's name; those that the runtime knows nothing of are missing."""
        found = {}
        worker = self._workers.get(uid)
        for container in worker.observed.running if worker is not None else ():
            try:
                async with asyncio.timeout(RUNTIME_S):
                    stats = await parts.runtime.container_stats(container.id)
            except (Retryable, Permanent, NotFound, TimeoutError) as error:
                logger.debug("what container {} wrote is not known: {}", container.name, error)
                continue
            found[container.name] = stats.writable_layer.used_bytes.value
        return found
