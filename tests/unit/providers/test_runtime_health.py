"""How the runtime is, in its own words, for containerd of either generation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from agent.cri._generated import api_pb2 as pb
from agent.cri.channel import RuntimeChannel
from agent.cri.images import ImageClient
from agent.cri.runtime import RuntimeClient
from agent.errors import Retryable
from agent.node.ports import NodeImage, RuntimeHandler
from agent.pods.cgroups import CgroupDriver
from agent.providers import runtime_health
from agent.providers.runtime_health import HealthReader, cgroup_driver
from tests.fakes.cri import FakeRuntime, serving
from tests.fakes.skipped_time import SkippedTime, with_skipped_time


class Told(FakeRuntime):
    """A runtime that answers Status and RuntimeConfig with what a test gives it."""

    status = pb.StatusResponse()
    driver = pb.SYSTEMD

    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusResponse:
        answer = await super().Status(request, context)
        answer.MergeFrom(self.status)
        if not request.verbose:
            answer.ClearField("info")
        return answer

    async def RuntimeConfig(self, request: pb.RuntimeConfigRequest, context: Any) -> pb.RuntimeConfigResponse:
        await super().RuntimeConfig(request, context)
        return pb.RuntimeConfigResponse(linux=pb.LinuxRuntimeConfiguration(cgroup_driver=self.driver))


@asynccontextmanager
async def asked(cri: FakeRuntime) -> AsyncIterator[tuple[HealthReader, RuntimeClient]]:
    async with serving(cri) as endpoint, RuntimeChannel(endpoint) as channel:
        runtime = RuntimeClient(channel)
        yield HealthReader(runtime, ImageClient(channel)), runtime


# ------------------------------------------------------------ health


async def test_a_runtime_that_is_well_is_ready_with_its_name_and_version() -> None:
    async with asked(FakeRuntime()) as (reader, _):
        health = await reader.health()
        assert (health.down, health.runtime.ready, health.network.ready) == ("", True, True)
        assert (health.name, health.version) == ("fake", "1.0")
        assert health.supplemental_groups_policy is None


async def test_a_network_that_is_not_ready_says_why() -> None:
    cri = FakeRuntime()
    cri.conditions["NetworkReady"] = False
    async with asked(cri) as (reader, _):
        health = await reader.health()
        assert health.runtime.ready
        assert (health.network.ready, health.network.reason) == (False, "NetworkReadyLost")


async def test_a_condition_that_the_runtime_does_not_tell_is_not_good() -> None:
    cri = FakeRuntime()
    del cri.conditions["NetworkReady"]
    async with asked(cri) as (reader, _):
        assert not (await reader.health()).network.ready


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.NOT_FOUND])
async def test_a_runtime_that_cannot_be_asked_is_down_and_keeps_its_name(code: grpc.StatusCode) -> None:
    cri = FakeRuntime()
    async with asked(cri) as (reader, _):
        await reader.health()
        cri.fail("Status", code, "it is broken")
        health = await reader.health()
        assert "it is broken" in health.down
        assert (health.name, health.version) == ("fake", "1.0")


async def test_after_an_outage_the_version_is_asked_again() -> None:
    cri = FakeRuntime()
    async with asked(cri) as (reader, _):
        await reader.health()
        await reader.health()
        assert len(cri.called("Version")) == 1
        cri.fail("Status", grpc.StatusCode.UNAVAILABLE)
        await reader.health()
        cri.name = "newer"
        assert (await reader.health()).name == "newer"


@with_skipped_time
async def test_a_runtime_that_does_not_answer_is_down_after_five_seconds() -> None:
    time = SkippedTime()
    cri = FakeRuntime(time)
    cri.hold("Status")
    async with asked(cri) as (reader, _):
        health = asyncio.ensure_future(reader.health())
        await cri.reached("Status")
        time.skip(runtime_health.ANSWER_S)
        assert (await health).down == "it did not answer within 5 s"


async def test_handlers_and_features_are_told() -> None:
    cri = Told()
    cri.status = pb.StatusResponse(
        runtime_handlers=[
            pb.RuntimeHandler(name="runc", features=pb.RuntimeHandlerFeatures(recursive_read_only_mounts=True))
        ],
        features=pb.RuntimeFeatures(supplemental_groups_policy=True),
    )
    async with asked(cri) as (reader, _):
        health = await reader.health()
        assert health.handlers == (RuntimeHandler("runc", True, False),)
        assert health.supplemental_groups_policy is True


async def test_images_last_seen_are_kept_while_the_runtime_is_away() -> None:
    cri = FakeRuntime()
    cri.add_image("busybox:1")
    async with asked(cri) as (reader, _):
        seen = (NodeImage(("busybox:1@sha256:busybox:1", "busybox:1"), 1),)
        assert await reader.images() == seen
        cri.fail("ListImages", grpc.StatusCode.UNAVAILABLE)
        assert await reader.images() == seen


# ------------------------------------------------------------ cgroup driver


@pytest.mark.parametrize(("told", "driver"), [(pb.SYSTEMD, "systemd"), (pb.CGROUPFS, "cgroupfs")])
async def test_containerd_2_tells_its_cgroup_driver(told: Any, driver: str) -> None:
    cri = Told()
    cri.driver = told
    async with asked(cri) as (_, runtime):
        assert await cgroup_driver(runtime) == driver
        assert cri.called("Status") == []


def containerd_1(default: str | None = "runc", **runtimes: Any) -> str:
    """The CRI plugin's configuration as containerd 1.x prints it in its verbose status."""
    containerd: dict[str, Any] = {"snapshotter": "overlayfs", "runtimes": runtimes}
    if default is not None:
        containerd["defaultRuntimeName"] = default
    return json.dumps({"containerd": containerd, "cni": {"binDir": "/opt/cni/bin"}, "sandboxImage": "pause:3.8"})


def handler(**options: Any) -> dict[str, Any]:
    return {"runtimeType": "io.containerd.runc.v2", "PodAnnotations": [], "options": {"BinaryName": "", **options}}


NO_OPTIONS = {"runtimeType": "io.containerd.kata.v2", "options": None}


@pytest.mark.parametrize(
    ("config", "driver"),
    [
        (containerd_1(runc=handler(SystemdCgroup=True)), "systemd"),
        (containerd_1(runc=handler(SystemdCgroup=False)), "cgroupfs"),
        (containerd_1(runc=handler()), "cgroupfs"),
        (containerd_1(None, runc=handler(SystemdCgroup=True)), "systemd"),
        (containerd_1("mine", runc=handler(), mine=handler(SystemdCgroup=True)), "systemd"),
        (containerd_1(runc=handler(SystemdCgroup=True), kata=NO_OPTIONS), "systemd"),
        (containerd_1("kata", runc=handler(SystemdCgroup=True), kata=NO_OPTIONS), "cgroupfs"),
        ('{"containerd": {"runtimes": null}}', "cgroupfs"),
        ("{}", "cgroupfs"),
        ("no json", "cgroupfs"),
    ],
)
async def test_containerd_1_tells_it_in_its_verbose_status(config: str, driver: str) -> None:
    cri = Told()
    cri.unserved.add("RuntimeConfig")
    cri.status = pb.StatusResponse(info={"config": config})
    async with asked(cri) as (_, runtime):
        assert await cgroup_driver(runtime) == driver


async def test_a_runtime_that_tells_nothing_uses_cgroupfs() -> None:
    cri = FakeRuntime()
    cri.unserved.add("RuntimeConfig")
    async with asked(cri) as (_, runtime):
        assert await cgroup_driver(runtime) is CgroupDriver.CGROUPFS


async def test_a_runtime_that_is_away_is_asked_later_and_nothing_is_guessed() -> None:
    cri = FakeRuntime()
    cri.fail("RuntimeConfig", grpc.StatusCode.UNAVAILABLE)
    async with asked(cri) as (_, runtime):
        with pytest.raises(Retryable):
            await cgroup_driver(runtime)
