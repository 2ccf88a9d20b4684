"""Clients of a real containerd of either generation, and pods that are gone when the test is over."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from agent.cri._generated import api_pb2 as pb
from agent.cri.channel import RuntimeChannel
from agent.cri.images import ImageClient
from agent.cri.runtime import RuntimeClient
from agent.errors import NotFound
from hack.images import BUSYBOX
from hack.runtime import Containerd

Sandboxes = Callable[[], Awaitable[tuple[str, pb.PodSandboxConfig]]]


@pytest.fixture
async def channel(containerd: Containerd) -> AsyncIterator[RuntimeChannel]:
    async with RuntimeChannel(containerd.endpoint) as channel:
        yield channel


@pytest.fixture
async def runtime(channel: RuntimeChannel) -> RuntimeClient:
    return RuntimeClient(channel)


@pytest.fixture
async def images(channel: RuntimeChannel) -> ImageClient:
    return ImageClient(channel)


@pytest.fixture
async def run_sandbox(containerd: Containerd, runtime: RuntimeClient, tmp_path: Path) -> AsyncIterator[Sandboxes]:
    """Makes a sandbox and gives its id and config."""
    made: list[str] = []

    async def run() -> tuple[str, pb.PodSandboxConfig]:
        uid = str(uuid.uuid4())
        config = pb.PodSandboxConfig(
            metadata=pb.PodSandboxMetadata(name="cri-client", namespace="default", uid=uid),
            hostname="cri-client",
            log_directory=str(tmp_path),
            labels={"io.kubernetes.pod.uid": uid},
            linux=pb.LinuxPodSandboxConfig(cgroup_parent=f"{containerd.cgroup}/kubepods/{uid}"),
        )
        made.append(await runtime.run_pod_sandbox(config))
        return made[-1], config

    yield run
    for sandbox_id in made:
        try:
            await runtime.stop_pod_sandbox(sandbox_id)
            await runtime.remove_pod_sandbox(sandbox_id)
        except NotFound:  # the test removed it
            continue


def shell(script: str, name: str = "main") -> pb.ContainerConfig:
    return pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=name),
        image=pb.ImageSpec(image=BUSYBOX),
        command=["sh", "-c", script],
        log_path=f"{name}.log",
        linux=pb.LinuxContainerConfig(),
    )
