"""CSI volumes in a pod's worker: a driver that comes late, one that hangs while the pod is deleted, one asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from agent.model.csi import Capability, PublishVolume, StageVolume
from agent.model.objects import ObjectKey
from agent.model.record import PodRecord
from agent.node.attached import AttachedVolumes
from agent.pods.knowledge import StopCause
from agent.pods.volumes.csi import REPUBLISH_S, CsiVolumes
from agent.pods.volumes.pod_volumes import PodVolumes
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.unit.pods.scene import NODE, Scene, record, scene

NAME = "inline.csi.test"


class Driver:
    """Fits the pods' `Driver` and `Drivers`; `calls` is what it was asked."""

    def __init__(self) -> None:
        self.here = True
        self.hangs = False
        self.calls: list[str] = []

    def find(self, driver: str) -> Driver | None:
        return self if self.here else None

    def listen(self, changed: Callable[[], None]) -> None:
        """Tests tell the worker themselves."""

    async def capabilities(self) -> frozenset[Capability]:
        return frozenset()

    async def stage(self, volume: StageVolume, capabilities: frozenset[Capability]) -> None:
        raise AssertionError("inline volumes are never staged")

    async def unstage(self, volume_id: str, staging_path: str) -> None:
        raise AssertionError("inline volumes are never staged")

    async def publish(self, volume: PublishVolume, capabilities: frozenset[Capability]) -> None:
        self.calls.append("publish")
        if self.hangs:
            await asyncio.Event().wait()
        Path(volume.target_path).mkdir(exist_ok=True)

    async def unpublish(self, volume_id: str, target_path: str) -> None:
        self.calls.append("unpublish")


def with_driver(s: Scene, **spec: Any) -> Driver:
    driver = Driver()
    known = {"metadata": {"name": NAME}, "spec": {"volumeLifecycleModes": ["Ephemeral"], **spec}}
    s.objects.held[ObjectKey("csidrivers", "", NAME)] = msgspec.json.encode(known)

    def csi(root: Path, mounts: Any) -> CsiVolumes:
        return CsiVolumes(root, NODE, driver, AttachedVolumes(), s.objects, s.tokens, mounts)

    s.machine.volumes = PodVolumes(s.root, s.mounts, csi=csi)
    return driver


def with_volume() -> PodRecord:
    return record(volumes=[{"name": "v", "csi": {"driver": NAME}}])


@with_skipped_time
async def test_a_pod_starts_as_soon_as_its_driver_registers(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        driver = with_driver(s)
        driver.here = False
        worker = s.start(with_volume())
        await s.until(lambda: s.events.messages("FailedMount"))
        await quiet()
        assert "CreateContainer" not in s.moves
        driver.here = True
        worker.driver_came()
        await s.until(lambda: s.phase == "Running")
        assert driver.calls == ["publish"]


@with_skipped_time
async def test_a_driver_that_comes_is_no_news_to_a_pod_that_has_its_volumes(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        driver = with_driver(s)
        worker = await s.running(with_volume())
        await quiet()
        before = s.objects.asked
        worker.driver_came()
        await quiet()
        assert (s.objects.asked, driver.calls) == (before, ["publish"])


@with_skipped_time
async def test_a_driver_that_hangs_does_not_hold_up_a_deletion_and_is_asked_to_undo_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        driver = with_driver(s)
        driver.hangs = True
        worker = s.start(with_volume())
        await s.until(lambda: driver.calls == ["publish"])
        worker.stop(StopCause.DELETED, 0)
        await s.until(lambda: s.gone)
        assert driver.calls == ["publish", "unpublish"]
        assert not s.volume("csi", "v").exists()


@with_skipped_time
async def test_a_driver_that_wants_it_is_asked_again_every_minute(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        driver = with_driver(s, requiresRepublish=True)
        await s.running(with_volume())
        for times in (2, 3):
            await quiet()
            s.skip(REPUBLISH_S)
            await s.until(lambda: len(driver.calls) == times)  # noqa: B023
        assert set(driver.calls) == {"publish"}
