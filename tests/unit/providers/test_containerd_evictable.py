"""The provider's pods as eviction sees them, over a runtime on the real wire."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest

from agent.model.record import PodRecord
from agent.node.eviction.ports import Eviction
from agent.node.eviction.signals import Resource
from agent.pods.cgroups import CgroupDriver, kubepods_path
from agent.providers import containerd_evictable
from agent.stats.figures import MachineFigures, Reading, Subject
from agent.stats.reader import Depth, Reader
from agent.stats.storage import LocalStorage
from tests.fakes.skipped_time import with_skipped_time
from tests.fakes.waiting import PATIENCE_S, eventually
from tests.unit.node.eviction.uses import figures
from tests.unit.pods.scene import TEST_CGROUPS, record
from tests.unit.providers.test_containerd import Node, node

WHY = "The node was low on resource: memory. "


def limited() -> PodRecord:
    limits = {"limits": {"ephemeral-storage": "1Mi"}}
    main = {
        "name": "main",
        "image": "busybox",
        "resources": limits,
        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
    }
    return record(containers=[main], volumes=[{"name": "cache", "emptyDir": {}}])


@with_skipped_time
async def test_before_the_runtime_has_answered_nothing_is_known_and_nothing_raised(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        pods = n.make().evictable()
        assert (pods.cgroup, await pods.image_dir(), pods.active()) == (None, None, ())
        assert await pods.figures(Resource.DISK) == {}
        assert await pods.storage([record().pod]) == {}
        assert pods.is_down("u-1")


@with_skipped_time
async def test_an_evicted_pod_ends_and_stays_so_for_the_next_agent(tmp_path: Path) -> None:
    async with node(tmp_path) as n:
        async with n.agent() as provider:
            await n.running(provider)
            pods = provider.evictable()
            assert [pod.uid for pod in pods.active()] == ["u-1"]
            pods.evict("u-1", Eviction(WHY, 1, disruption=WHY))
            assert pods.active() == ()
            await eventually(lambda: n.phase() == "Failed" and pods.is_down("u-1"))
            assert n.updates[-1].status.reason == "Evicted"
        n.updates.clear()
        async with n.agent() as provider:
            await provider.create_pod(record())
            await eventually(lambda: n.phase() == "Failed")
            assert (n.updates[-1].status.reason, n.updates[-1].status.message) == ("Evicted", WHY)
            assert provider.evictable().active() == ()


@with_skipped_time
async def test_what_a_pod_wrote_is_put_together_from_runtime_logs_and_folders(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider, limited())
        (volume,) = (n.folder / "root/pods/u-1/volumes").glob("*/cache")
        (volume / "file").write_bytes(b"x" * 100_000)
        n.cri.container("main").written = 7000
        found = (await provider.evictable().storage([limited().pod]))["u-1"]
        assert found.written == {"main": 7000}
        assert found.volumes["cache"] >= 100_000
        assert found.logs.keys() == {"main"}


@with_skipped_time
async def test_a_runtime_that_does_not_answer_costs_only_what_it_knows(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider, limited())
        pods = provider.evictable()
        for method in ("ContainerStats", "ListContainerStats", "ImageFsInfo"):
            n.cri.fail(method, grpc.StatusCode.INTERNAL, times=1000)
        assert await pods.image_dir() is None
        found = (await pods.storage([limited().pod]))["u-1"]
        assert isinstance(found, LocalStorage)
        assert found.written == {}
        # Its cgroup is nowhere on this machine.
        assert await pods.figures(Resource.DISK) == {}
        assert pods.cgroup == kubepods_path(CgroupDriver.CGROUPFS, TEST_CGROUPS)


@with_skipped_time
async def test_where_images_are_is_asked_once_a_minute(tmp_path: Path) -> None:
    async with node(tmp_path) as n, n.agent() as provider:
        await n.running(provider)
        pods = provider.evictable()
        before = _asked(n)
        for _ in range(3):
            assert await pods.image_dir() == Path("/")
        assert _asked(n) == before + 1


def _asked(n: Node) -> int:
    return sum(method == "ImageFsInfo" for method, _ in n.cri.calls)


@with_skipped_time
async def test_a_pod_that_takes_too_long_to_count_is_taken_for_a_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = threading.Event()

    def read(_: Reader, subjects: Sequence[Subject], depth: Depth, written: object = None) -> Reading:
        if depth is Depth.DISKS and subjects[0].pod.uid == "slow":
            counted.wait(PATIENCE_S)
        machine = MachineFigures(1, 0, 0, 0, 0, 0, 0, None, None)
        return Reading(0, None, machine, tuple(figures(one.pod.uid, volume=1 + depth) for one in subjects))

    monkeypatch.setattr(Reader, "read", read)
    monkeypatch.setattr(containerd_evictable, "RANK_S", 0.5)
    async with node(tmp_path) as n, n.agent() as provider:
        for uid in ("quick", "slow", "after"):
            await n.running(provider, record({"uid": uid, "name": uid}))
        found = await provider.evictable().figures(Resource.DISK)
        counted.set()
        assert {uid: one.volumes[0].disk.used_bytes for uid, one in found.items()} == {"quick": 3, "after": 2}
