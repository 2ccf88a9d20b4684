"""The pods' cgroups on this machine: kubepods, a level for each class of pods below it, and one for each pod.

In: the driver and root, the node's own limits and rules, and pods that come and change. Out: folders and values in the
kernel's cgroup file systems; under the systemd driver systemd hears of them too, lest it take them back. Only what is
named here is made or written. Everything blocks for moments: run it in a thread.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath

from loguru import logger
from msgspec.structs import replace

from agent.model.pod import Pod
from agent.pods import cgroup_slices
from agent.pods.cgroup_limits import CgroupLimits, CgroupRules, files, pod_cgroup_limits, qos_cgroup_limits
from agent.pods.cgroups import (
    CGROUP_FS,
    CgroupDriver,
    CgroupVersion,
    cgroup_version,
    hierarchies,
    is_deserted,
    kubepods_path,
    pod_cgroup_path,
    pod_cgroups,
    qos_cgroup_path,
    remove_pod_cgroup,
    removed_empty_cgroup,
)
from agent.pods.qos import QosClass, qos_class
from agent.pods.scripts.leftovers import end_leftovers

_V1_CONTROLLERS = ("cpu", "memory", "pids", "hugetlb")
"""Those that a limit may be written to; the runtime makes the others as it needs them."""


class CgroupTree:
    def __init__(
        self,
        driver: CgroupDriver,
        root: str = "/",
        rules: CgroupRules | None = None,
        node: CgroupLimits | None = None,
        others: Mapping[str, CgroupLimits] | None = None,
        mount: Path | None = None,
    ) -> None:
        """`node` is what all pods together may have, `others` what cgroups of somebody else's making are to keep to."""
        self.driver = driver
        self.root = root
        self._rules = rules or CgroupRules()
        self._node = node or CgroupLimits()
        self._others = others or {}
        self._mount = mount or CGROUP_FS
        self._version = cgroup_version(self._mount)
        self._burstable: tuple[int, int, int] | None = None
        """What was written of the levels: cpu, and the memory of both classes where that is protected."""
        self._requested: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._lock = threading.Lock()

    def protects(self, requested: Callable[[], tuple[int, int]]) -> None:
        """`requested`: memory that Guaranteed and Burstable pods request. A level's protection bounds its pods'."""
        self._requested = requested

    def prepare(self, burstable_milli_cpu: int) -> None:
        """The levels above the pods, at the start. Raises OSError."""
        for path, limits in self._others.items():
            self._write(PurePosixPath(path.strip("/")), limits)
        guaranteed, burstable = self._requested() if self._rules.protect_memory else (0, 0)
        node = replace(self._node, memory_min=guaranteed + burstable) if self._rules.protect_memory else self._node
        self._make(kubepods_path(self.driver, self.root), node)
        for qos in (QosClass.BURSTABLE, QosClass.BEST_EFFORT):
            limits = qos_cgroup_limits(qos, burstable_milli_cpu, self._rules, burstable)
            self._make(qos_cgroup_path(qos, self.driver, self.root), limits)
        self._burstable = (burstable_milli_cpu, guaranteed, burstable)

    def make_pod(self, pod: Pod, burstable_milli_cpu: int) -> None:
        """`burstable_milli_cpu` is what all pods of that class request. Raises OSError for want of a folder."""
        with self._lock:
            if self._burstable is None:
                self.prepare(burstable_milli_cpu)
            self.weigh(burstable_milli_cpu)
        self._make(self._path(pod), pod_cgroup_limits(pod, self._rules))

    def set_pod(self, pod: Pod) -> None:
        """Its limits changed. Raises OSError where the kernel refuses: memory that is in use, say."""
        self._write(self._path(pod), pod_cgroup_limits(pod, self._rules), strict=True)

    def widen_pod(self, pod: Pod, burstable_milli_cpu: int) -> None:
        """The same for the limits that grow, and none of those that shrink. Raises OSError."""
        with self._lock:
            self.weigh(burstable_milli_cpu)
        self._write(self._path(pod), pod_cgroup_limits(pod, self._rules), strict=True, growing=True)

    def memory(self, pod: Pod) -> tuple[int, float]:
        """Bytes in the pod's cgroup and its limit, infinite where it has none; 0 and infinite where there is none."""
        v2 = self._version is CgroupVersion.V2
        folder = (self._mount if v2 else self._mount / "memory") / self._path(pod)
        used, limit = ("memory.current", "memory.max") if v2 else ("memory.usage_in_bytes", "memory.limit_in_bytes")
        try:
            most = (folder / limit).read_text().strip()
            return int((folder / used).read_text()), math.inf if most == "max" else int(most)
        except OSError:
            return 0, math.inf

    def remove_pod(self, pod: Pod, burstable_milli_cpu: int) -> None:
        """Raises Retryable while a process is in it, or OSError."""
        where = (pod.uid, qos_class(pod), self.driver, self.root)
        if not removed_empty_cgroup(*where, mount=self._mount):
            end_leftovers(*where, mount=self._mount)
            remove_pod_cgroup(*where, mount=self._mount)
        with self._lock:
            self.weigh(burstable_milli_cpu)

    def pods(self) -> Mapping[str, QosClass]:
        """The pods, by UID, that have a cgroup here. Raises OSError."""
        return pod_cgroups(self.driver, self.root, mount=self._mount)

    def is_deserted(self, uid: str, qos: QosClass) -> bool:
        """Whether no process is in that pod's cgroup. Raises OSError."""
        return is_deserted(uid, qos, self.driver, self.root, mount=self._mount)

    def weigh(self, burstable_milli_cpu: int) -> None:
        """The burstable level weighs what its pods request together; what is protected is so above the pods too."""
        guaranteed, burstable = self._requested() if self._rules.protect_memory else (0, 0)
        now = (burstable_milli_cpu, guaranteed, burstable)
        if now == self._burstable or self._burstable is None:
            return
        if self._rules.protect_memory:
            self._write(kubepods_path(self.driver, self.root), CgroupLimits(memory_min=guaranteed + burstable))
        limits = qos_cgroup_limits(QosClass.BURSTABLE, burstable_milli_cpu, self._rules, burstable)
        self._write(qos_cgroup_path(QosClass.BURSTABLE, self.driver, self.root), limits)
        self._burstable = now

    def _path(self, pod: Pod) -> PurePosixPath:
        return pod_cgroup_path(pod.uid, qos_class(pod), self.driver, self.root)

    def _make(self, path: PurePosixPath, limits: CgroupLimits) -> None:
        if self.driver is CgroupDriver.SYSTEMD:
            cgroup_slices.start(path.name, limits, self._version)
        if self._version is CgroupVersion.V2 and self._mount.is_dir():
            self._hand_down(path)
        for top in self._tops:
            (top / path).mkdir(parents=True, exist_ok=True)
        self._write(path, limits)

    def _write(self, path: PurePosixPath, limits: CgroupLimits, *, strict: bool = False, growing: bool = False) -> None:
        """`strict`: raise what the kernel refuses. Otherwise a pod runs without a limit rather than not at all."""
        if strict and not growing and self.driver is CgroupDriver.SYSTEMD:
            cgroup_slices.change(path.name, limits, self._version)
        for one in files(limits, self._version):
            top = self._mount if self._version is CgroupVersion.V2 else self._mount / one.controller
            file = top / path / one.name
            if not file.parent.is_dir() or (one.optional and not file.exists()):
                continue
            if growing and not _more(one.value, file.read_text()):
                continue
            try:
                file.write_text(one.value)
            except OSError as error:
                if strict:
                    raise
                logger.warning("cgroup {}: {} cannot be {}: {}", path, one.name, one.value, error.strerror)

    @cached_property
    def _tops(self) -> tuple[Path, ...]:
        """The hierarchies to make folders in: mounted before the agent started, and it takes long to look for them."""
        if self._version is CgroupVersion.V2:
            return (self._mount,)
        here = {top.resolve() for name in _V1_CONTROLLERS if (top := self._mount / name).is_dir()}
        return tuple(sorted(here & {top.resolve() for top in hierarchies(self._mount)}))

    def _hand_down(self, path: PurePosixPath) -> None:
        """Version 2: a cgroup has the controllers that each one above it hands down."""
        above = self._mount
        for part in path.parts:
            have = (above / "cgroup.controllers").read_text().split()
            given = (above / "cgroup.subtree_control").read_text().split()
            for controller in have:
                if controller in given:
                    continue
                try:
                    (above / "cgroup.subtree_control").write_text(f"+{controller}")
                except OSError as error:
                    logger.debug("cgroup {} does not hand down {}: {}", above, controller, error)
            above = above / part
            try:
                os.mkdir(above)
            except FileExistsError:
                continue


def _more(new: str, old: str) -> bool:
    """Of two limits as the kernel writes them: the number comes first, and less than 0 or `max` is no limit."""

    def amount(text: str) -> float:
        first = text.split()[0] if text.split() else "max"
        return math.inf if first == "max" or int(first) < 0 else int(first)

    return amount(new) > amount(old)
