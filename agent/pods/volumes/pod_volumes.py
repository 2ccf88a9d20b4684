"""Take the steps of a mount plan, keep payloads fresh, and take a pod's volumes away again.

The one place of the package that touches the disk for the pods worker. Every call does its blocking work in one hop to
a thread. A volume that can't be set up is Permanent("FailedMount", …) where the pod or its references must change
first, and Retryable where the machine may recover by itself.
"""

from __future__ import annotations

import asyncio
import errno
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import assert_never

from agent.errors import Permanent, Retryable
from agent.model.node import NodeFacts
from agent.model.pod import Pod
from agent.pods.downward import NodeContext
from agent.pods.references import Referenced
from agent.pods.volumes import atomic, csi_disk, host_path, subpath
from agent.pods.volumes.csi import CsiVolumes
from agent.pods.volumes.empty_dir import make_folder, make_hugetlbfs, make_tmpfs
from agent.pods.volumes.layout import pod_dir, pods_dir, subpath_target
from agent.pods.volumes.mount_plan import (
    MountPlan,
    failure,
    plan_mounts,
)
from agent.pods.volumes.mounts import KernelMounts, Mounts
from agent.pods.volumes.removal import remove_tree
from agent.pods.volumes.shown import Commands, mount_remote, run_command, show_local
from agent.pods.volumes.steps import (
    CheckHostPath,
    LocalStep,
    MakeFolder,
    MakeHugetlbfs,
    MakeTmpfs,
    MountRemote,
    PublishCsi,
    ShowLocal,
    WritePayload,
)

FAILED_MOUNT = "FailedMount"


class PodVolumes:
    """The volumes of this node's pods below `root_dir`. Calls for one pod must not overlap; pods are independent."""

    def __init__(
        self,
        root_dir: Path,
        mounts: Mounts | None = None,
        run: Commands = run_command,
        csi: Callable[[Path, Mounts], CsiVolumes] | None = None,
        node: Callable[[], NodeFacts] | None = None,
    ) -> None:
        # Mount points are listed without links, so the paths that we look for must be free of them too.
        self._root = root_dir.resolve()
        self._mounts = KernelMounts() if mounts is None else mounts
        self._run = run
        self._node = node
        self._csi = csi(self._root, self._mounts) if csi is not None else None

    async def recall(self) -> None:
        """Learn what an earlier agent left here; once, before anything else."""
        if self._csi is not None:
            await self._csi.recall()

    async def set_up(self, pod: Pod, referenced: Referenced, context: NodeContext) -> Mapping[str, Path]:
        """Make every volume of the pod ready; volume name → path on this machine.

        What is there already stays as it is, so it is right to call this again after a restart or a failure. Raises
        Permanent with one message a volume, Retryable.
        """
        facts = self._node() if self._node is not None else None
        plan = plan_mounts(pod, referenced, context, self._root, facts=facts)
        _refuse(plan)
        if here := _here(plan):
            await asyncio.to_thread(self._take, here)
        return {step.name: step.path for step in plan.steps}

    async def bring(self, pod: Pod, referenced: Referenced, context: NodeContext) -> None:
        """Have drivers bring what `set_up` could not make alone. May take minutes, and may be cancelled.

        Raises as `set_up`.
        """
        for step in self._brought(pod, referenced, context):
            await self._drivers_of(step).set_up(pod, step)

    async def refresh(self, pod: Pod, referenced: Referenced, context: NodeContext) -> tuple[str, ...]:
        """Write what changed in configMap, secret, downwardAPI and projected volumes; the names of those that did.

        A volume that can't be had keeps its old contents. Raises as `set_up` after the others are written.
        """
        plan = plan_mounts(pod, referenced, context, self._root, payloads_only=True)
        here = _here(plan)
        changed = await asyncio.to_thread(self._take, here) if here else ()
        _refuse(plan)
        for step in self._brought(pod, referenced, context):
            if step.republish:
                await self._drivers_of(step).republish(pod, step)
        return changed

    def _brought(self, pod: Pod, referenced: Referenced, context: NodeContext) -> list[PublishCsi]:
        if not any(volume.csi is not None or volume.claim_name(pod.metadata.name) for volume in pod.spec.volumes):
            return []
        plan = plan_mounts(pod, referenced, context, self._root)
        return [step for step in plan.steps if isinstance(step, PublishCsi)]

    def _drivers_of(self, step: PublishCsi) -> CsiVolumes:
        if self._csi is None:
            raise Permanent(
                FAILED_MOUNT, failure(step.name, "CSI volumes need an API server: the node runs standalone")
            )
        return self._csi

    async def prepare_subpath(
        self, pod: Pod, container: str, index: int, volume: str, volume_path: Path, sub_path: str
    ) -> Path:
        """The path to mount for `volumeMounts[index]` of a container that names a subPath (already expanded).

        Raises Permanent where it leads outside the volume, Retryable.
        """
        target = subpath_target(self._root, pod.uid, volume, container, index)
        message = f'failed to prepare subPath for volumeMount "{volume}" of container "{container}"'
        try:
            await asyncio.to_thread(subpath.bind, volume_path, sub_path, target, self._mounts)
        except ValueError as error:
            raise Permanent("CreateContainerConfigError", f"{message}: {error}") from error
        except OSError as error:
            raise Retryable(f"{message}: {error}") from error
        return target

    async def tear_down(self, uid: str) -> None:
        """Unmount everything below the pod's folder and remove it. No error where it is gone.

        Raises Retryable, naming what is in the way; nothing is removed while anything is still mounted.
        """
        folder = pod_dir(self._root, uid)
        if self._csi is not None and self._csi.used:
            # A driver can't take away what is still shown elsewhere.
            await asyncio.to_thread(self._unmount_below, folder / "volume-subpaths")
            await self._csi.tear_down(uid)
        elif self._csi is None:
            await asyncio.to_thread(self._refuse_drivers, uid)
        await asyncio.to_thread(self._tear_down, folder)

    def pods_on_disk(self) -> set[str]:
        """The UIDs of all pods that have a folder here."""
        try:
            return {entry.name for entry in pods_dir(self._root).iterdir() if entry.is_dir()}
        except FileNotFoundError:
            return set()

    def is_on_disk(self, uid: str) -> bool:
        """Whether that pod has a folder here. Raises OSError where that cannot be told."""
        try:
            return stat.S_ISDIR((pods_dir(self._root) / uid).stat().st_mode)
        except FileNotFoundError:
            return False

    def _take(self, steps: tuple[LocalStep, ...]) -> tuple[str, ...]:
        """Take every step that can be taken, then report the first that could not; names of rewritten payloads."""
        changed: list[str] = []
        refused: list[str] = []
        failed: list[str] = []
        for step in steps:
            try:
                if self._one(step):
                    changed.append(step.name)
            except ValueError as error:
                refused.append(failure(step.name, error))
            except OSError as error:
                failed.append(failure(step.name, error))
        if refused:
            raise Permanent(FAILED_MOUNT, "; ".join(refused + failed))
        if failed:
            raise Retryable("; ".join(failed))
        return tuple(changed)

    def _one(self, step: LocalStep) -> bool:
        match step:
            case MakeFolder():
                make_folder(step.path, step.group)
            case MakeTmpfs():
                make_tmpfs(step.path, step.size_bytes, step.group, self._mounts)
            case MakeHugetlbfs():
                make_hugetlbfs(step.path, step.page_bytes, step.group, self._mounts)
            case CheckHostPath():
                host_path.check(step.path, step.type)
            case ShowLocal():
                show_local(step, self._mounts, self._run)
            case MountRemote():
                mount_remote(step, self._mounts, self._run)
            case WritePayload():
                if step.in_memory:
                    make_tmpfs(step.path, step.size_bytes, step.group, self._mounts)
                else:
                    make_folder(step.path, step.group)
                for point in step.nested:
                    (step.path / point).mkdir(0o755, parents=True, exist_ok=True)
                return atomic.write(step.path, step.payload, step.group)
            case _:
                assert_never(step)
        return False

    def _refuse_drivers(self, uid: str) -> None:
        """Raises Retryable where a CSI driver brought something: only it can take that away, and here is none."""
        for one in csi_disk.published(self._root, uid):
            raise Retryable(f"volume {one.handle} of CSI driver {one.driver} is in use: the driver has to take it away")

    def _tear_down(self, folder: Path) -> None:
        if not folder.exists():
            return
        self._unmount_below(folder)
        try:
            remove_tree(folder)
        except OSError as error:
            raise Retryable(f"can't remove {folder}: {error}") from error

    def _unmount_below(self, folder: Path) -> None:
        points = self._mounts.at_or_below(folder)
        while points:
            busy = [problem for point in points if (problem := self._unmount(point))]
            left = self._mounts.at_or_below(folder)  # dear where there are many mounts: it is read no more often
            if not busy and left == points:
                busy = [f"{point}: still mounted" for point in points]
            if busy:
                raise Retryable(f"can't unmount {'; '.join(busy)}")
            points = left

    def _unmount(self, point: Path) -> str:
        """What is in the way, empty where nothing is."""
        try:
            self._mounts.unmount(point)
        except OSError as error:
            # EINVAL and ENOENT: somebody was faster, or it lies under another mount, and the next round gets it.
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                return f"{point}: {error.strerror}"
        return ""


def _here(plan: MountPlan) -> tuple[LocalStep, ...]:
    return tuple(step for step in plan.steps if not isinstance(step, PublishCsi))


def _refuse(plan: MountPlan) -> None:
    if plan.problems:
        raise Permanent(FAILED_MOUNT, "; ".join(plan.problems))
