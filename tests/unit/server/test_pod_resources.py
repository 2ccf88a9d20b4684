"""Which container has which device: asked on the socket that monitoring mounts."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from agent.config import Settings
from agent.cri._generated import podresources_pb2 as pb
from agent.cri._generated import podresources_pb2_grpc as rpc
from agent.model.devices import NO_OPTIONS, Device, DeviceSettings
from agent.model.pod import Pod
from agent.model.record import PodRecord
from agent.model.status import Phase, PodStatus
from agent.pods.devices.devices import Devices
from agent.server.pod_resources import BURST, FOLDER, SOCKET, PodResources, RateLimit
from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import eventually
from tests.unit.pods.pods import make_pod

WIDGET = "example.com/widget"


class Plugin:
    async def prefer(self, available: tuple[str, ...], must_include: tuple[str, ...], size: int) -> tuple[str, ...]:
        return ()

    async def allocate(self, ids: tuple[str, ...]) -> DeviceSettings:
        return DeviceSettings()

    async def pre_start(self, ids: tuple[str, ...]) -> None:
        return


class Lab:
    def __init__(self, root: Path) -> None:
        self.clock = FakeClock()
        self.devices = Devices(MemoryStore(), self.clock, "boot-1", lambda: None)
        plugin = Plugin()
        self.devices.connected(WIDGET, plugin, NO_OPTIONS)
        self.devices.told(WIDGET, plugin, [Device("a", numa=(0, 1)), Device("b"), Device("bad", healthy=False)])
        self.pods: list[tuple[PodRecord, PodStatus | None]] = []
        self.socket = root / FOLDER / SOCKET
        self.served = PodResources(Settings("edge-1", root_dir=root), lambda: self.pods, self.devices, self.clock)

    async def has(self, name: str, phase: Phase = Phase.RUNNING, **spec: Any) -> None:
        pod: Pod = make_pod({"uid": f"uid-{name}", "name": name}, **spec)
        await self.devices.allocate(pod)
        self.pods.append((PodRecord(pod, b"{}"), PodStatus(phase=phase)))


def asks(name: str, count: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "i", "resources": {"limits": {WIDGET: count}}, **more}


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    # pytest's own folders are too deep for the path of a socket.
    with tempfile.TemporaryDirectory(prefix="pr-") as root:
        made = Lab(Path(root))
        task = asyncio.create_task(made.served.run())
        await eventually(made.socket.exists)
        yield made
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def client(lab: Lab) -> AsyncIterator[rpc.PodResourcesListerStub]:
    async with grpc.aio.insecure_channel(f"unix://{lab.socket}") as channel:
        yield rpc.PodResourcesListerStub(channel)


def told(answer: pb.PodResources) -> list[tuple[str, list[tuple[str, list[str], list[int]]]]]:
    return [
        (
            container.name,
            [(d.resource_name, list(d.device_ids), [node.ID for node in d.topology.nodes]) for d in container.devices],
        )
        for container in answer.containers
    ]


async def test_each_container_is_told_with_its_devices(lab: Lab, client: rpc.PodResourcesListerStub) -> None:
    inits = [asks("first", 1), asks("beside", 1, restartPolicy="Always")]
    await lab.has("web", initContainers=inits, containers=[asks("main", 1), {"name": "plain", "image": "i"}])
    await lab.has("done", Phase.SUCCEEDED)
    [web] = (await client.List(pb.ListPodResourcesRequest())).pod_resources
    assert (web.name, web.namespace) == ("web", "shop")
    near = [(WIDGET, ["a"], [0]), (WIDGET, ["a"], [1])]
    assert told(web) == [("beside", near), ("main", [(WIDGET, ["b"], [])]), ("plain", [])]
    found = await client.Get(pb.GetPodResourcesRequest(pod_name="web", pod_namespace="shop"))
    assert found.pod_resources == web


async def test_a_pod_that_is_not_here_is_not_found(lab: Lab, client: rpc.PodResourcesListerStub) -> None:
    await lab.has("web")
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await client.Get(pb.GetPodResourcesRequest(pod_name="web", pod_namespace="other"))
    assert missing.value.details() == "pod web in namespace other not found"


async def test_healthy_devices_can_be_had_whoever_has_them(lab: Lab, client: rpc.PodResourcesListerStub) -> None:
    await lab.has("web", containers=[asks("main", 1)])
    answer = await client.GetAllocatableResources(pb.AllocatableResourcesRequest())
    assert [list(one.device_ids) for one in answer.devices] == [["a"], ["a"], ["b"]]
    assert list(answer.cpu_ids) == []


async def test_the_older_version_lists_too(lab: Lab) -> None:
    await lab.has("web", containers=[asks("main", 1)])
    async with grpc.aio.insecure_channel(f"unix://{lab.socket}") as channel:
        older = channel.unary_unary(
            "/v1alpha1.PodResourcesLister/List",
            pb.ListPodResourcesRequest.SerializeToString,
            pb.ListPodResourcesResponse.FromString,
        )
        [web] = (await older(pb.ListPodResourcesRequest())).pod_resources
    assert web.name == "web"


async def test_who_asks_too_often_is_told_so(lab: Lab, client: rpc.PodResourcesListerStub) -> None:
    for _ in range(BURST):
        await client.List(pb.ListPodResourcesRequest())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.List(pb.ListPodResourcesRequest())
    assert (refused.value.code(), refused.value.details()) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "rejected by rate limit",
    )
    await lab.clock.advance(0.02)
    await client.List(pb.ListPodResourcesRequest())


def test_a_rate_limit_never_saves_up_more_than_its_burst() -> None:
    clock = FakeClock()
    limit = RateLimit(clock, per_second=1, burst=2)
    asyncio.run(clock.advance(3600))
    assert [limit.allows() for _ in range(3)] == [True, True, False]
