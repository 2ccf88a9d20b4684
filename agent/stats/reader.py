"""Read the figures of the node and its pods: cgroups, network namespaces, folders. Nothing here asks the runtime.

In: the pods and how much is wanted of them. Out: one `Reading`. Blocks for as long as the files take: called in a
thread. What takes long (walks of volumes) is kept for a minute, as a kubelet keeps it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path, PurePosixPath

import psutil

from agent.model.observed import ObservedContainer
from agent.model.pod import Pod
from agent.model.volume import Volume
from agent.pods.cgroups import CgroupDriver, pod_cgroup_path
from agent.pods.logfiles import LogFiles
from agent.pods.qos import qos_class
from agent.pods.volumes.layout import VolumePlugin, pod_dir, volume_dir
from agent.stats import disk, network
from agent.stats.cgroups import Cgroups, Usage
from agent.stats.figures import ContainerFigures, MachineFigures, PodFigures, Reading, Subject, Taken, VolumeFigures

KEEP_S = 60.0
_TOP = PurePosixPath()
_ON_DISK = {
    "emptyDir": VolumePlugin.EMPTY_DIR,
    "configMap": VolumePlugin.CONFIG_MAP,
    "secret": VolumePlugin.SECRET,
    "downwardAPI": VolumePlugin.DOWNWARD_API,
    "projected": VolumePlugin.PROJECTED,
}


class Depth(IntEnum):
    """How much is wanted; each holds what is before it."""

    USAGE = 0
    DETAILS = 1
    DISKS = 2


class Reader:
    def __init__(
        self,
        driver: CgroupDriver,
        cgroup_root: str,
        root_dir: Path,
        log_files: LogFiles,
        cgroups: Cgroups | None = None,
        proc: Path = Path("/proc"),
    ) -> None:
        self._driver = driver
        self._cgroup_root = cgroup_root
        self._root = root_dir
        self._log_files = log_files
        self._cgroups = cgroups or Cgroups()
        self._proc = proc
        self._walked: dict[Path, tuple[float, disk.FileSystem]] = {}

    def read(self, subjects: Sequence[Subject], depth: Depth, written: Mapping[str, Taken] | None = None) -> Reading:
        """`written`: what containers have written, by their id."""
        pods = tuple(found for subject in subjects if (found := self._pod(subject, depth, written or {})) is not None)
        node = self._cgroups.usage(_TOP)
        return Reading(
            at_ns=time.time_ns(),
            node=node,
            machine=self._machine(),
            pods=pods,
            system=self._system() if depth >= Depth.DISKS else {},
            node_details=self._cgroups.details(_TOP) if depth >= Depth.DETAILS else None,
        )

    # ------------------------------------------------------------ pods

    def _pod(self, subject: Subject, depth: Depth, written: Mapping[str, Taken]) -> PodFigures | None:
        """None for a pod of which nothing runs."""
        pod, observed = subject.pod, subject.observed
        if observed.sandbox is None or not observed.sandbox.ready:
            return None
        path = pod_cgroup_path(pod.uid, qos_class(pod), self._driver, self._cgroup_root)
        usage = self._cgroups.usage(path)
        if usage is None:
            return None
        sandbox_path = path / self._leaf(observed.sandbox.id)
        meta = pod.metadata
        containers = (self._container(pod, one, path, depth, written) for one in observed.running)
        deep = depth >= Depth.DETAILS
        return PodFigures(
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            started_at_ns=observed.sandbox.created_at_ns,
            cgroup=f"/{path}",
            usage=usage,
            containers=tuple(found for found in containers if found is not None),
            sandbox=self._sandbox(sandbox_path, observed.sandbox.id, observed.sandbox.created_at_ns) if deep else None,
            details=self._cgroups.details(path) if deep else None,
            network=self._network(pod, sandbox_path) if deep else (),
            volumes=tuple(self._volumes(subject)) if depth >= Depth.DISKS else (),
        )

    def _container(
        self, pod: Pod, seen: ObservedContainer, path: PurePosixPath, depth: Depth, written: Mapping[str, Taken]
    ) -> ContainerFigures | None:
        own = path / self._leaf(seen.id)
        usage = self._cgroups.usage(own)
        if usage is None:
            return None
        return ContainerFigures(
            name=seen.name,
            id=seen.id,
            image=seen.image,
            cgroup=f"/{own}",
            started_at_ns=seen.started_at_ns or seen.created_at_ns,
            usage=usage,
            details=self._cgroups.details(own) if depth >= Depth.DETAILS else None,
            log=self._log(pod, seen.name) if depth >= Depth.DISKS else None,
            writable=written.get(seen.id),
        )

    def _sandbox(self, path: PurePosixPath, sandbox_id: str, started_at_ns: int) -> ContainerFigures | None:
        usage = self._cgroups.usage(path)
        if usage is None:
            return None
        details = self._cgroups.details(path)
        return ContainerFigures("", sandbox_id, "", f"/{path}", started_at_ns, usage, details)

    def _leaf(self, container_id: str) -> str:
        """The name that the runtime gives a container's own cgroup."""
        return container_id if self._driver is CgroupDriver.CGROUPFS else f"cri-containerd-{container_id}.scope"

    def _network(self, pod: Pod, sandbox: PurePosixPath) -> tuple[network.Interface, ...]:
        if pod.spec.hostNetwork:
            return ()
        processes = self._cgroups.processes(sandbox)
        return network.interfaces(processes[0], self._proc) if processes else ()

    # ------------------------------------------------------------ folders

    def _log(self, pod: Pod, container: str) -> Taken:
        """All runs' files, rotated ones too."""
        return Taken(*disk.files(self._log_files.pod_folder(pod) / container))

    def _volumes(self, subject: Subject) -> Iterable[VolumeFigures]:
        for volume in subject.pod.spec.volumes:
            claim = volume.claim_name(subject.pod.metadata.name) or ""
            if claim or volume.csi is not None:
                path = self._mounted(subject, volume)
                found = disk.file_system(path) if path is not None else None
                if found is not None:
                    yield VolumeFigures(volume.name, found, claim)
                continue
            for kind, plugin in _ON_DISK.items():
                if getattr(volume, kind) is not None:
                    path = volume_dir(self._root, subject.pod.uid, plugin, volume.name)
                    in_memory = os.path.ismount(path)
                    found = disk.file_system(path) if in_memory else self._walk(path)
                    if found is not None:
                        yield VolumeFigures(volume.name, found, on_node=not in_memory)

    def _mounted(self, subject: Subject, volume: Volume) -> Path | None:
        """The folder of a volume with a file system of its own. None: unknown, or not one that can be asked.

        A server's file system (NFS) is not: one that is away would hold up who asks.
        """
        folders = pod_dir(self._root, subject.pod.uid) / "volumes"
        path = subject.volumes.get(volume.name)
        if path is None:
            known = set(subject.volumes.values())
            found = [
                *(folders / VolumePlugin.CSI).glob("*/mount"),
                *(folders / VolumePlugin.LOCAL).glob("*"),
            ]
            left = [one for one in found if one not in known]
            claims = [v for v in subject.pod.spec.volumes if v.claim_name("") or v.csi]
            path = left[0] if len(left) == 1 and len(claims) == 1 else None
        if path is None or not path.is_relative_to(folders) or path.is_relative_to(folders / VolumePlugin.NFS):
            return None
        return path if os.path.ismount(path) else None

    def _walk(self, path: Path) -> disk.FileSystem | None:
        now = time.monotonic()
        if (kept := self._walked.get(path)) is not None and now - kept[0] < KEEP_S:
            return kept[1]
        found = disk.folder(path)
        for old in [old for old, (at, _) in self._walked.items() if now - at >= 2 * KEEP_S]:
            del self._walked[old]
        if found is not None:
            self._walked[path] = (now, found)
        return found

    # ------------------------------------------------------------ the machine

    def _machine(self) -> MachineFigures:
        swap = psutil.swap_memory()
        return MachineFigures(
            cpus=psutil.cpu_count() or 1,
            memory_bytes=psutil.virtual_memory().total,
            swap_bytes=swap.total,
            swap_used_bytes=swap.used,
            booted_at_ns=int(psutil.boot_time()) * 1_000_000_000,
            processes=tasks(self._proc) or 0,
            process_limit=_integer(self._proc / "sys/kernel/pid_max"),
            disk=disk.file_system(self._root),
            logs_disk=disk.file_system(self._log_files.pods),
            network=network.interfaces(None, self._proc),
        )

    def _system(self) -> dict[str, Usage]:
        root = PurePosixPath(*(part for part in self._cgroup_root.split("/") if part))
        if self._driver is CgroupDriver.SYSTEMD:
            names = [*(part.replace("-", "_") for part in root.parts), "kubepods"]
            slices = ("-".join(names[: depth + 1]) + ".slice" for depth in range(len(names)))
            pods = self._cgroups.usage(PurePosixPath(*slices))
        else:
            pods = self._cgroups.usage(root / "kubepods")
        return {"kubelet": _own_usage(), **({"pods": pods} if pods is not None else {})}


def _own_usage() -> Usage:
    """The agent by its process: it need not have a cgroup of its own."""
    process = psutil.Process()
    with process.oneshot():
        times, memory = process.cpu_times(), process.memory_info()
    return Usage(
        at_ns=time.time_ns(),
        cpu_ns=int((times.user + times.system) * 1e9),
        memory_bytes=memory.rss,
        working_set_bytes=memory.rss,
        rss_bytes=memory.rss,
        cache_bytes=0,
        mapped_bytes=0,
        swap_bytes=0,
        page_faults=0,
        major_page_faults=0,
        memory_limit=None,
    )


def tasks(proc: Path) -> int | None:
    """Processes and threads that exist now, from one short file: counting /proc would cost a fork's worth of work."""
    try:
        # "0.20 0.18 0.12 1/80 11206": running tasks of all tasks
        return int((proc / "loadavg").read_text().split()[3].partition("/")[2])
    except (OSError, IndexError, ValueError):
        return None


def _integer(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0
