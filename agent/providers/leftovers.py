"""Traces of pods that nobody knows: folders of volumes and of logs, and cgroups.

In: the UIDs of the pods that are known. Out: records that are enough to end such a pod, which takes its traces away.
A pod that the runtime has is somebody's (another agent's too), and so is a cgroup that a process is in. Whether nobody
wants a pod is not decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Protocol, TypeVar

import msgspec
from loguru import logger

from agent.cri._generated import api_pb2
from agent.model.record import PodRecord
from agent.pods.cgroup_tree import CgroupTree
from agent.pods.logfiles import LogFiles
from agent.pods.on_disk import on_disk
from agent.pods.qos import QosClass
from agent.pods.volumes.pod_volumes import PodVolumes
from agent.providers.found import left_record
from agent.said_once import SaidOnce

T = TypeVar("T")


class Traces(msgspec.Struct, frozen=True):
    """By UID."""

    folders: Set[str] = frozenset()
    logs: Mapping[str, tuple[str, str]] = msgspec.field(default_factory=dict)
    """Namespace and name."""
    cgroups: Mapping[str, QosClass] = msgspec.field(default_factory=dict)

    def of_others_than(self, known: Set[str]) -> Traces:
        return Traces(self.folders - known, _without(self.logs, known), _without(self.cgroups, known))

    def nobodys(self, held: Set[str], deserted: Set[str]) -> Traces:
        """Without the pods that the runtime has, and without those whose cgroup is in use or may soon be.

        The folder of volumes is the agent's own: what is in it is not another's.
        """
        held = held | (self.cgroups.keys() - deserted)
        return Traces(self.folders, _without(self.logs, held), _without(self.cgroups, held))

    def records(self) -> tuple[PodRecord, ...]:
        uids = sorted({*self.folders, *self.logs, *self.cgroups})
        return tuple(left_record(uid, self.logs.get(uid), self.cgroups.get(uid)) for uid in uids)


def _without(pods: Mapping[str, T], known: Set[str]) -> dict[str, T]:
    return {uid: one for uid, one in pods.items() if uid not in known}


class ListsSandboxes(Protocol):
    async def list_pod_sandbox(self) -> Sequence[api_pb2.PodSandbox]: ...


class Leftovers:
    def __init__(self, runtime: ListsSandboxes, volumes: PodVolumes, logs: LogFiles, cgroups: CgroupTree) -> None:
        self._runtime = runtime
        self._volumes = volumes
        self._logs = logs
        self._cgroups = cgroups
        self._empty_before: Set[str] = frozenset()
        """Pods whose cgroup was empty at the last look too: it is not one that was just made."""
        self._busy = SaidOnce[str]()

    async def records(self, known: Callable[[], Set[str]]) -> tuple[PodRecord, ...]:
        """One of each pod that has left something. Raises Retryable."""
        with on_disk("cannot look for what gone pods left"):
            found = (await asyncio.to_thread(self._read)).of_others_than(known())
            if found.logs or found.cgroups:
                held = {sandbox.metadata.uid for sandbox in await self._runtime.list_pod_sandbox()}
                empty = await asyncio.to_thread(self._empty, _without(found.cgroups, held))
                self._say_busy(found.cgroups.keys() - held - empty)
                found, self._empty_before = found.nobodys(held, empty & self._empty_before), empty
        return found.records()

    def _read(self) -> Traces:
        return Traces(self._volumes.pods_on_disk(), self._logs.pods_on_disk(), self._cgroups.pods())

    def _empty(self, cgroups: Mapping[str, QosClass]) -> Set[str]:
        return {uid for uid, qos in cgroups.items() if self._cgroups.is_deserted(uid, qos)}

    def _say_busy(self, uids: Set[str]) -> None:
        for uid in self._busy.new(uids):
            logger.warning("the cgroup of pod {} has processes, and neither the record nor the runtime knows it", uid)
