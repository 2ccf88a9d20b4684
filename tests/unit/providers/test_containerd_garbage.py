"""The provider's garbage over a runtime on the real wire: what counts as used, and what a short disk costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from agent.config import Settings
from agent.cri._generated import api_pb2 as pb
from agent.cri.images import ImageClient
from agent.cri.runtime import RuntimeClient
from agent.providers.containerd_garbage import Garbage
from tests.fakes.skipped_time import quiet, with_skipped_time
from tests.fakes.store import MemoryStore
from tests.unit.pods.scene import Scene, container_record, record, scene

LOG = "2026-03-01T12:00:00.000000000Z stdout F line\n"


def garbage(s: Scene, store: MemoryStore | None = None, **settings: Any) -> Garbage:
    made = Settings(node_name="edge", minimum_image_ttl_duration=0, **settings)
    runtime, images = s.machine.runtime, s.machine.images
    assert isinstance(runtime, RuntimeClient)
    assert isinstance(images, ImageClient)
    return Garbage(made, store or MemoryStore(), s.machine, runtime, images, s.workers.values)


async def recorded(store: MemoryStore, image: str, uid: str) -> None:
    await store.put(f"pods/api/{uid}", container_record({"uid": uid, "name": uid}, image=image).raw)


@with_skipped_time
async def test_a_short_disk_costs_the_images_that_no_container_pod_or_sandbox_needs(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.running()
        for name in ("unused:1", "foreign:1", "recorded:1", "pause:3.9"):
            s.cri.add_image(f"docker.io/library/{name}")
        foreign = pb.PodSandboxConfig(metadata=pb.PodSandboxMetadata(name="f", uid="f"))
        sandbox = await s.machine.runtime.run_pod_sandbox(foreign)
        image = pb.ImageSpec(image="docker.io/library/foreign:1")
        config = pb.ContainerConfig(metadata=pb.ContainerMetadata(name="f"), image=image)
        await s.machine.runtime.create_container(sandbox, config, foreign)
        s.cri.config = msgspec.json.encode({"sandboxImage": "pause:3.9"}).decode()
        store = MemoryStore()
        await recorded(store, "recorded:1", "u-9")
        await store.put("pods/api/u-8", b"no pod")
        await garbage(s, store).reclaim()
        assert sorted(s.cri.images) == [
            "busybox:latest",
            "docker.io/library/foreign:1",
            "docker.io/library/pause:3.9",
            "docker.io/library/recorded:1",
        ]


@with_skipped_time
async def test_the_image_of_a_pod_that_has_ended_is_free_once_its_containers_are(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        store = MemoryStore()
        wanted = record(restartPolicy="Never")
        await store.put("pods/api/u-1", wanted.raw)
        await s.running(wanted)
        s.exit("main")
        await s.until(lambda: s.phase == "Succeeded")
        await quiet()
        await garbage(s, store).reclaim()
        assert (s.cri.containers, s.cri.images) == ({}, {})


@with_skipped_time
async def test_what_cannot_be_asked_removes_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.cri.add_image("docker.io/library/unused:1")
        s.cri.config = "not JSON"
        await garbage(s).reclaim()
        s.cri.config = "{}"
        s.cri.unserved.add("ListContainers")
        await garbage(s).reclaim()
        assert list(s.cri.images) == ["docker.io/library/unused:1"]


@with_skipped_time
async def test_a_running_containers_log_is_rotated_where_it_lies(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        worker = await s.running()
        file = s.machine.log_files.file(worker.record.pod, "main", 0)
        file.write_text(LOG * 10)
        await garbage(s, container_log_max_size=len(LOG) * 20).reclaim()
        assert len(list(file.parent.glob("0.log.*"))) == 1
        (asked,) = s.cri.called("ReopenContainerLog")
        assert asked.container_id == s.cri.container("main").id
