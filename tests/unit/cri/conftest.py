"""A runtime in memory behind a real socket, and the clients that speak to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from agent.cri._generated import api_pb2 as pb
from agent.cri.channel import RuntimeChannel
from agent.cri.images import ImageClient
from agent.cri.runtime import RuntimeClient
from tests.fakes.cri import FakeRuntime, serving


@dataclass(slots=True)
class Rig:
    fake: FakeRuntime
    channel: RuntimeChannel
    runtime: RuntimeClient
    images: ImageClient

    async def sandbox(self, uid: str = "uid-1") -> str:
        return await self.runtime.run_pod_sandbox(sandbox_config(uid))

    async def container(self, sandbox_id: str, name: str = "main") -> str:
        self.fake.add_image("busybox")
        return await self.runtime.create_container(sandbox_id, container_config(name), sandbox_config())


def sandbox_config(uid: str = "uid-1") -> pb.PodSandboxConfig:
    return pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(name="web", namespace="default", uid=uid), labels={"app": "web", "uid": uid}
    )


def container_config(name: str = "main") -> pb.ContainerConfig:
    return pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=name), image=pb.ImageSpec(image="busybox"), labels={"name": name}
    )


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    fake = FakeRuntime()
    async with serving(fake) as endpoint, RuntimeChannel(endpoint) as channel:
        yield Rig(fake, channel, RuntimeClient(channel), ImageClient(channel))
