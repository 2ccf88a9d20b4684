"""The containerd provider's figures: ask the runtime what only it knows, read the rest from the kernel, write the page.

Made when somebody first asks: a node that nobody watches holds none of it. One reading at a time; whoever comes
meanwhile waits for his turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
from msgspec.structs import replace

from agent.config import Settings
from agent.cri._generated import api_pb2 as pb
from agent.cri.images import ImageClient
from agent.cri.runtime import RuntimeClient
from agent.errors import Permanent, Retryable
from agent.node.facts import read_facts
from agent.pods.machine import Machine
from agent.pods.worker import PodWorker
from agent.stats import disk
from agent.stats.cadvisor import MachineIdentity, cadvisor_metrics
from agent.stats.figures import Reading, Subject, Taken
from agent.stats.rates import Rates
from agent.stats.reader import Depth, Reader
from agent.stats.resource import resource_metrics
from agent.stats.summary import NODE, summary
from agent.stats.volumes import volume_metrics

WINDOW_S = 1.0
"""Who asks first waits this long for a rate."""
RUNTIME_S = 10.0
"""A runtime that does not answer costs what it knows, not the page."""


class ContainerdStats:
    def __init__(
        self,
        settings: Settings,
        machine: Machine,
        runtime: RuntimeClient,
        images: ImageClient,
        workers: Callable[[], Iterable[PodWorker]],
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._images = images
        self._workers = workers
        root = settings.root_dir.absolute()
        self._reader = Reader(machine.cgroups.driver, machine.cgroups.root, root, machine.log_files)
        self._rates = Rates()
        self._turn = asyncio.Lock()
        self._identity: MachineIdentity | None = None

    async def summary(self) -> dict[str, Any]:
        async with self._turn:
            reading = await self._read(Depth.DISKS)
            if reading.node is not None and self._rates.is_due(NODE, reading.node.at_ns):
                summary(self._settings.node_name, reading, self._rates)
                await asyncio.sleep(WINDOW_S)
                reading = await self._read(Depth.DISKS)
            return summary(self._settings.node_name, reading, self._rates)

    async def resource(self) -> str:
        async with self._turn:
            return resource_metrics(await self._read(Depth.USAGE))

    async def cadvisor(self) -> str:
        async with self._turn:
            reading = await self._read(Depth.DETAILS)
            return await asyncio.to_thread(self._cadvisor, reading)

    async def volumes(self) -> str:
        """kubelet_volume_stats_*, of volumes that are claims."""
        async with self._turn:
            return volume_metrics(await self._read(Depth.DISKS))

    def _cadvisor(self, reading: Reading) -> str:
        if self._identity is None:
            facts = read_facts(self._settings.root_dir)
            self._identity = MachineIdentity(facts.machine_id, facts.system_uuid, facts.boot_id)
        return cadvisor_metrics(reading, self._identity, _devices(), "pause", psutil.cpu_count(logical=False))

    async def _read(self, depth: Depth) -> Reading:
        subjects = [Subject(one.record.pod, one.observed, one.volumes) for one in self._workers()]
        if depth < Depth.DISKS:
            return await asyncio.to_thread(self._reader.read, subjects, depth)
        try:
            async with asyncio.timeout(RUNTIME_S):
                stats = await self._runtime.list_container_stats()
                images = await self._images.image_fs_info()
        except (Retryable, Permanent, TimeoutError):
            return await asyncio.to_thread(self._reader.read, subjects, depth)
        written = {one.attributes.id: _taken(one.writable_layer) for one in stats if one.HasField("writable_layer")}
        reading = await asyncio.to_thread(self._reader.read, subjects, depth, written)
        return await asyncio.to_thread(_with_images, reading, images)


def _taken(usage: pb.FilesystemUsage) -> Taken:
    return Taken(usage.used_bytes.value, usage.inodes_used.value)


def _with_images(reading: Reading, images: pb.ImageFsInfoResponse) -> Reading:
    for one in images.image_filesystems:
        if (found := disk.file_system(Path(one.fs_id.mountpoint))) is not None:
            machine = replace(reading.machine, images_disk=found, images_used_bytes=one.used_bytes.value)
            return replace(reading, machine=machine)
    return reading


def _devices(sys: Path = Path("/sys")) -> dict[str, str]:
    """Names of block devices by major:minor."""
    found = {}
    for file in (sys / "dev/block").glob("*"):
        try:
            found[file.name] = file.resolve().name
        except OSError:
            continue  # unplugged just now
    return found
