"""The containerd provider's garbage: images, logs of running containers, links without a log. Composition, and reclaim.

In: the machine, the record and the pods' workers. Out: loops that run as long as the agent, and `reclaim` for whoever
finds the disk short. What a single pod leaves is its worker's (`agent.pods.garbage.remains`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Set
from functools import partial
from pathlib import Path

import msgspec
from loguru import logger

from agent.config import Settings
from agent.cri.images import ImageClient
from agent.cri.runtime import RuntimeClient
from agent.errors import EdgeletError, Permanent, Retryable
from agent.model.objects import ObjectReference
from agent.model.pod import decode_pod
from agent.pods.desired import PREFIX
from agent.pods.garbage.image_collector import ImageCollector, Room
from agent.pods.garbage.image_plan import ImageRules, full_names, wanted_images
from agent.pods.garbage.log_rotation import LogRotation, LogRules, RunningLog
from agent.pods.garbage.traces import remove_kept
from agent.pods.machine import Machine
from agent.pods.worker import PodWorker
from agent.providers.containerd_disk import DiskRestarts
from agent.providers.contract import ProviderContext
from agent.store.base import Store

LINKS_S = 60.0
RECLAIM_S = 30.0
"""Of a pod that cannot be cleared away in this time, nobody waits any longer."""

Workers = Callable[[], Iterable[PodWorker]]


class Garbage:
    def __init__(
        self,
        settings: Settings,
        store: Store,
        machine: Machine,
        runtime: RuntimeClient,
        images: ImageClient,
        workers: Workers,
        kept: Callable[[], Set[str]] = frozenset,
    ) -> None:
        """`kept`: names of images that stay though nothing uses them."""
        self._store = store
        self._kept = kept
        self._machine = machine
        self._runtime = runtime
        self._images = images
        self._workers = workers
        node = settings.node_name
        self._collector = ImageCollector(
            images,
            self._references,
            self._room,
            machine.access.removed,
            machine.events,
            ObjectReference(kind="Node", name=node, uid=node),
            _image_rules(settings),
            machine.monotonic,
        )
        self._rotation = LogRotation(
            runtime,
            self._logs,
            LogRules(
                settings.container_log_max_size,
                settings.container_log_max_files,
                settings.container_log_monitor_interval,
            ),
            going=machine.log_files.going,
        )

    def use(self, settings: Settings) -> None:
        """Images are collected by these settings from now on."""
        self._collector.use(_image_rules(settings))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._collector.run(), name="images")
            tasks.create_task(self._rotation.run(), name="log rotation")
            tasks.create_task(self._remove_stale_links(), name="log links")
            disk = DiskRestarts(self._machine, self._runtime, self._workers, self._room)
            tasks.create_task(disk.run(), name="restarts on disk")

    async def reclaim(self) -> None:
        """Free what can be freed: dead containers of ended pods, unused images, logs. Never raises ours."""
        try:
            async with asyncio.timeout(RECLAIM_S):
                await asyncio.gather(*(worker.reclaim() for worker in self._workers()))
        except TimeoutError:
            logger.warning("not every ended pod is cleared away within {:g} s", RECLAIM_S)
        await self._machine.kept.reclaim(partial(remove_kept, self._machine))
        await self._rotation.reclaim()
        try:
            freed = await self._collector.reclaim()
            logger.info("unused images were removed: {} bytes", freed)
        except EdgeletError as error:
            logger.warning("unused images are not removed: {}", error)

    # ------------------------------------------------------------ what is used

    async def _references(self) -> frozenset[str]:
        """IDs and names of the images of all containers here, of the record's pods, of sandboxes, and of those kept."""
        listed = await self._runtime.list_containers()
        of_containers = {name for one in listed for name in (one.image_ref, one.image_id, one.image.image) if name}
        ended = {worker.record.uid for worker in self._workers() if _has_ended(worker)}
        of_pods = await self._wanted(ended)
        return frozenset(of_containers | of_pods | self._kept() | set(await self._sandbox_image()))

    async def _wanted(self, ended: Set[str]) -> set[str]:
        names: set[str] = set()
        for row in await self._store.list(PREFIX):
            if row.key.rpartition("/")[2] in ended:
                continue
            try:
                names |= wanted_images(decode_pod(row.value), self._machine.rewrites)
            except msgspec.DecodeError as error:
                logger.debug("record row {} is not a pod: {}", row.key, error)
        return names

    async def _sandbox_image(self) -> tuple[str, ...]:
        """containerd 2 pins it; 1.6 only has it in its settings."""
        config = (await self._runtime.status(verbose=True)).info.get("config", "{}")
        try:
            name = msgspec.json.decode(config, type=_Config).sandboxImage
        except msgspec.DecodeError as error:
            raise Permanent("", f"what the runtime says of its settings can't be read: {error}") from error
        return full_names(name) if name else ()

    async def _room(self) -> Room:
        """Of the file system that the runtime has its images on."""
        for one in (await self._images.image_fs_info()).image_filesystems:
            try:
                found = await asyncio.to_thread(os.statvfs, one.fs_id.mountpoint)
            except OSError as error:
                raise Retryable(f"cannot look at {one.fs_id.mountpoint}: {error.strerror}") from error
            return Room(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
        raise Retryable("the runtime does not say where its images are")

    def _logs(self) -> Iterator[RunningLog]:
        files = self._machine.log_files
        for worker in list(self._workers()):
            for container in worker.observed.running:
                yield RunningLog(container.id, files.file(worker.record.pod, container.name, container.attempt))

    async def _remove_stale_links(self) -> None:
        """What was stale at two looks: a container that was just made has no log yet."""
        before: Set[Path] = frozenset()
        while True:
            try:
                now = frozenset(await asyncio.to_thread(self._machine.log_files.stale_links))
                await asyncio.to_thread(_unlink, now & before)
                before = now - before
            except OSError as error:
                logger.warning("links to logs are not looked through: {}", error)
            await asyncio.sleep(LINKS_S)


def collecting(
    context: ProviderContext,
    machine: Machine,
    runtime: RuntimeClient,
    images: ImageClient,
    workers: Workers,
    kept: Callable[[], Set[str]],
) -> Garbage:
    """By the node's settings, and by what its Node says over them, whenever that changes."""
    policies = context.node_policies
    settings = context.settings if policies is None else policies.settings
    garbage = Garbage(settings, context.store, machine, runtime, images, workers, kept)
    if policies is not None:
        policies.notify(lambda: garbage.use(policies.settings))
    return garbage


class _Config(msgspec.Struct):
    sandboxImage: str = ""


def _image_rules(settings: Settings) -> ImageRules:
    return ImageRules(
        settings.image_gc_high_threshold,
        settings.image_gc_low_threshold,
        settings.minimum_image_ttl_duration,
        settings.image_maximum_gc_age,
    )


def _has_ended(worker: PodWorker) -> bool:
    return worker.status is not None and worker.status.phase.is_terminal


def _unlink(links: Iterable[Path]) -> None:
    for link in links:
        link.unlink(missing_ok=True)
