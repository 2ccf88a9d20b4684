"""Images as volumes: pulled by the node, mounted by the runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.model.record import PodRecord
from agent.pods.image_volumes import mounts_images
from tests.fakes.skipped_time import with_skipped_time
from tests.unit.pods.scene import Scene, record, scene


def with_model(policy: str = "", **mount: Any) -> PodRecord:
    mounts = [{"name": "model", "mountPath": "/model", **mount}]
    env = [{"name": "PART", "value": "deep"}]
    return record(
        containers=[{"name": "main", "image": "busybox:1", "volumeMounts": mounts, "env": env}],
        volumes=[{"name": "model", "image": {"reference": "models/tiny:1", "pullPolicy": policy}}],
    )


def capable(s: Scene) -> None:
    s.cri.name, s.cri.version = "containerd", "v2.1.0"
    s.cri.add_image("busybox:1")


@with_skipped_time
async def test_the_runtime_is_given_the_image_and_never_a_path(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        capable(s)
        await s.running(with_model(subPathExpr="$(PART)/er"))
        (mount, *_) = s.cri.container("main").config.mounts
        assert (mount.container_path, mount.host_path, mount.readonly) == ("/model", "", True)
        assert (mount.image.user_specified_image, mount.image_sub_path) == ("models/tiny:1", "deep/er")
        assert mount.image.image == s.cri.images["models/tiny:1"].id
        assert [request.image.image for request in s.cri.called("PullImage")] == ["models/tiny:1"]


@with_skipped_time
async def test_an_image_that_cannot_be_had_holds_its_container_up_until_it_can(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        capable(s)
        s.start(with_model("Never"))
        await s.until(lambda: s.waits() == "ErrImageNeverPull")
        s.cri.add_image("models/tiny:1")
        s.skip(1)
        await s.until(lambda: s.phase == "Running")


@with_skipped_time
async def test_a_failed_pull_backs_off_as_of_a_containers_own_image(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        capable(s)
        s.cri.fail("PullImage", grpc.StatusCode.UNKNOWN, "no route")
        s.start(with_model())
        await s.until(lambda: s.waits() == "ErrImagePull")
        s.skip(3)
        await s.until(lambda: s.waits() == "ImagePullBackOff")
        s.skip(12)
        await s.until(lambda: s.phase == "Running")


@with_skipped_time
async def test_an_older_containerd_is_not_asked_for_what_it_would_leave_out(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        capable(s)
        s.cri.version = "1.6.20"
        s.start(with_model())
        await s.until(lambda: s.waits() == "CreateContainerConfigError")
        waiting = s.main().state.waiting
        assert waiting is not None
        assert waiting.message == 'volume "model": containerd 1.6.20 mounts no images, containerd 2.1 and later do'
        assert "CreateContainer" not in s.moves


@pytest.mark.parametrize(
    ("runtime", "version", "can"),
    [
        ("containerd", "1.6.20~ds1", False),
        ("containerd", "v1.7.27", False),
        ("containerd", "v2.0.4", False),
        ("containerd", "v2.1.0", True),
        ("containerd", "2.10.1-rc.1", True),
        ("containerd", "v3.0.0", True),
        ("containerd", "master", True),
        ("cri-o", "1.31.0", True),
    ],
)
def test_which_runtimes_mount_images(runtime: str, version: str, can: bool) -> None:
    assert mounts_images(runtime, version) is can
