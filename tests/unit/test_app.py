"""A whole standalone agent over a runtime on the real wire: what it ends, what it leaves alone, what ends it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.api_side import standalone_side
from agent.app import Agent
from agent.config import Settings
from agent.cri._generated import api_pb2 as pb
from agent.cri.channel import RuntimeChannel
from agent.cri.runtime import RuntimeClient
from agent.errors import Retryable
from agent.model import labels
from agent.store.base import Delete, Put
from tests.fakes.cri import FakeRuntime, serving
from tests.fakes.skipped_time import SkippedTime, quiet, with_skipped_time
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import eventually
from tests.unit.pods.scene import NODE, TEST_CGROUPS

MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {containers: [{name: main, image: busybox}]}
"""


class ReadOnlyStore(MemoryStore):
    """Rows can be put, and none removed."""

    async def batch(self, changes: Sequence[Put | Delete]) -> int:
        if any(isinstance(change, Delete) for change in changes):
            raise Retryable("the disk is full")
        return await super().batch(changes)


@dataclass
class Machine:
    folder: Path
    endpoint: str
    cri: FakeRuntime
    time: SkippedTime
    store: MemoryStore = field(default_factory=MemoryStore)
    has_manifests: bool = True

    def agent(self) -> Agent:
        settings = Settings(
            node_name=NODE,
            container_runtime_endpoint=self.endpoint,
            root_dir=self.folder / "root",
            pod_manifest_path=self.folder / "manifests" if self.has_manifests else None,
            pod_logs_dir=self.folder / "pods-logs",
            container_log_links_dir=self.folder / "links",
            cgroup_root=TEST_CGROUPS,
            local_api=None,
            resolv_conf=None,
        )
        return Agent(settings, self.store, standalone_side(self.store))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        life = asyncio.ensure_future(self.agent().live())
        try:
            yield life
        finally:
            failed = life.done()
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
            gc.unfreeze()
            if failed:
                life.result()

    async def sandbox(self, uid: str, node: str = NODE) -> str:
        """A pod's sandbox that somebody else has left here."""
        names = {labels.POD_NAME: "old", labels.POD_NAMESPACE: "shop", labels.POD_UID: uid, labels.NODE: node}
        meta = pb.PodSandboxMetadata(name="old", namespace="shop", uid=uid)
        async with RuntimeChannel(self.endpoint) as channel:
            return await RuntimeClient(channel).run_pod_sandbox(pb.PodSandboxConfig(metadata=meta, labels=names))


@asynccontextmanager
async def machine(folder: Path) -> AsyncIterator[Machine]:
    (folder / "manifests").mkdir()
    time = SkippedTime()
    cri = FakeRuntime(time)
    async with serving(cri) as endpoint:
        yield Machine(folder, endpoint, cri, time)


@with_skipped_time
async def test_what_nobody_wants_is_ended_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    async with machine(tmp_path) as m:
        orphan, foreign = await m.sandbox("u-9"), await m.sandbox("u-8", node="another")
        async with m.running():
            await eventually(lambda: orphan not in m.cri.sandboxes)
            await quiet()
        assert list(m.cri.sandboxes) == [foreign]


@with_skipped_time
async def test_nothing_is_ended_before_every_origin_has_told_its_pods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def says_nothing(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("agent.pods.sources.follow_manifests", says_nothing)
    async with machine(tmp_path) as m:
        await m.store.put("status/u-9", b"{}")
        orphan = await m.sandbox("u-9")
        async with m.running():
            await m.cri.until(lambda: m.cri.subscriptions == 1)
            m.time.skip(200)
            await quiet()
        assert orphan in m.cri.sandboxes
        assert "status/u-9" in m.store.rows


@with_skipped_time
async def test_a_wanted_pod_runs_on_over_restarts_and_sweeps(tmp_path: Path) -> None:
    async with machine(tmp_path) as m:
        (tmp_path / "manifests/web.yaml").write_text(MANIFEST)
        for _ in range(2):
            async with m.running():
                await eventually(lambda: [c.state for c in m.cri.containers.values()] == [pb.CONTAINER_RUNNING])
                await quiet()
                m.time.skip(200)
                await quiet()
        assert (len(m.cri.called("RunPodSandbox")), m.cri.called("StopPodSandbox")) == (1, [])


@with_skipped_time
async def test_pods_of_a_folder_that_the_settings_name_no_more_end(tmp_path: Path) -> None:
    async with machine(tmp_path) as m:
        (tmp_path / "manifests/web.yaml").write_text(MANIFEST)
        async with m.running():
            await eventually(lambda: [c.state for c in m.cri.containers.values()] == [pb.CONTAINER_RUNNING])
        m.has_manifests = False
        async with m.running():
            await eventually(lambda: not m.cri.sandboxes)


@with_skipped_time
async def test_a_pod_whose_manifest_went_while_the_agent_was_down_is_ended(tmp_path: Path) -> None:
    async with machine(tmp_path) as m:
        (tmp_path / "manifests/web.yaml").write_text(MANIFEST)
        async with m.running():
            await eventually(lambda: [c.state for c in m.cri.containers.values()] == [pb.CONTAINER_RUNNING])
        (tmp_path / "manifests/web.yaml").unlink()
        async with m.running():
            await eventually(lambda: not m.cri.sandboxes)


@with_skipped_time
async def test_the_record_forgets_pods_that_went_while_the_agent_was_down(tmp_path: Path) -> None:
    async with machine(tmp_path) as m:
        for key in ("status/u-9", "tokens/u-9/a", "other/u-9"):
            await m.store.put(key, b"{}")
        async with m.running():
            await eventually(lambda: list(m.store.rows) == ["other/u-9"])


@with_skipped_time
async def test_a_full_disk_keeps_old_rows_and_does_not_end_the_agent(tmp_path: Path) -> None:
    async with machine(tmp_path) as m:
        m.store = ReadOnlyStore()
        await m.store.put("status/u-9", b"{}")
        orphan = await m.sandbox("u-9")
        async with m.running() as life:
            await eventually(lambda: orphan not in m.cri.sandboxes)
            await quiet()
            assert not life.done()
        assert "status/u-9" in m.store.rows


@with_skipped_time
async def test_a_task_that_dies_ends_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def bug(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("agent.providers.containerd_relist.ContainerdRelist.run", bug)
    async with machine(tmp_path) as m:
        life = asyncio.ensure_future(m.agent().live())
        await eventually(life.done)
        with pytest.raises(ExceptionGroup) as ended:
            life.result()
        assert ended.group_contains(ValueError, match="a bug")
        gc.unfreeze()
