"""A device plugin on a real socket, whose devices a test turns bad; it registers as plugins do, and again when asked.

For each device it gives a node, a variable and a mount where a test wants one. What it was asked is kept in `calls`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from agent.cri._generated import deviceplugin_pb2 as pb
from agent.cri._generated import deviceplugin_pb2_grpc as rpc
from agent.cri._generated import registration_pb2, registration_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
RESOURCE = "example.com/widget"
VARIABLE = "WIDGETS"


class FakeDevicePlugin(rpc.DevicePluginServicer, registration_pb2_grpc.RegistrationServicer):
    def __init__(
        self,
        *devices: str,
        resource: str = RESOURCE,
        options: pb.DevicePluginOptions | None = None,
        numa: dict[str, int] | None = None,
    ) -> None:
        self.resource = resource
        self.options = options or pb.DevicePluginOptions()
        self.numa = numa or {}
        self.health = dict.fromkeys(devices, "Healthy")
        self.calls: list[Any] = []
        self.told: list[registration_pb2.RegistrationStatus] = []
        self.versions = ["v1beta1"]
        self.preferred: list[str] = []
        self.failures: dict[str, tuple[grpc.StatusCode, str]] = {}
        """Method → how it fails until the entry is taken away."""
        self.answer = pb.ContainerAllocateResponse()
        """What a container gets beside what each device brings."""
        self.held: dict[str, asyncio.Event] = {}
        """Method → it answers once this is set."""
        self._changed: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def said(self, kind: type[Any]) -> list[Any]:
        return [call for call in self.calls if isinstance(call, kind)]

    def turn(self, device: str, health: str | None) -> None:
        """Tell of another health; None: the device is no more. From any thread."""
        if health is None:
            del self.health[device]
        else:
            self.health[device] = health
        if self._loop is not None and self._changed is not None:
            self._loop.call_soon_threadsafe(self._changed.set)

    # ------------------------------------------------------------ the service

    async def GetDevicePluginOptions(self, request: Any, context: Context) -> pb.DevicePluginOptions:
        await self._answer("GetDevicePluginOptions", context)
        return self.options

    async def ListAndWatch(self, request: Any, context: Context) -> AsyncIterator[pb.ListAndWatchResponse]:
        self._loop, self._changed = asyncio.get_running_loop(), asyncio.Event()
        while True:
            self._changed.clear()
            await self._answer("ListAndWatch", context)
            yield pb.ListAndWatchResponse(devices=[self._device(one, how) for one, how in self.health.items()])
            await self._changed.wait()

    async def GetPreferredAllocation(
        self, request: pb.PreferredAllocationRequest, context: Context
    ) -> pb.PreferredAllocationResponse:
        self.calls.append(request)
        await self._answer("GetPreferredAllocation", context)
        chosen = pb.ContainerPreferredAllocationResponse(deviceIDs=self.preferred)
        return pb.PreferredAllocationResponse(container_responses=[chosen])

    async def Allocate(self, request: pb.AllocateRequest, context: Context) -> pb.AllocateResponse:
        self.calls.append(request)
        await self._answer("Allocate", context)
        answers = []
        for asked in request.container_requests:
            answer = pb.ContainerAllocateResponse()
            answer.CopyFrom(self.answer)
            answer.envs[VARIABLE] = " ".join(asked.devices_ids)
            for device in asked.devices_ids:
                answer.devices.add(container_path=f"/dev/{device}", host_path="/dev/null", permissions="rw")
            answers.append(answer)
        return pb.AllocateResponse(container_responses=answers)

    async def PreStartContainer(self, request: Any, context: Context) -> pb.PreStartContainerResponse:
        self.calls.append(request)
        await self._answer("PreStartContainer", context)
        return pb.PreStartContainerResponse()

    # ------------------------------------------------------------ registration by a socket in the folder

    async def GetInfo(self, request: Any, context: Context) -> registration_pb2.PluginInfo:
        return registration_pb2.PluginInfo(type="DevicePlugin", name=self.resource, supported_versions=self.versions)

    async def NotifyRegistrationStatus(self, request: Any, context: Context) -> Any:
        self.told.append(request)
        return registration_pb2.RegistrationStatusResponse()

    def _device(self, name: str, health: str) -> pb.Device:
        near = [pb.NUMANode(ID=self.numa[name])] if name in self.numa else []
        return pb.Device(ID=name, health=health, topology=pb.TopologyInfo(nodes=near))

    async def _answer(self, method: str, context: Context) -> None:
        if (held := self.held.get(method)) is not None:
            await held.wait()
        if (failure := self.failures.get(method)) is not None:
            await context.abort(*failure)


@asynccontextmanager
async def serving(plugin: FakeDevicePlugin, socket: Path) -> AsyncIterator[None]:
    """At that path, and gone with it at the end."""
    server = grpc.aio.server()
    rpc.add_DevicePluginServicer_to_server(plugin, server)
    registration_pb2_grpc.add_RegistrationServicer_to_server(plugin, server)
    server.add_insecure_port(f"unix://{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
        socket.unlink(missing_ok=True)


async def register(plugin: FakeDevicePlugin, folder: Path, endpoint: str, version: str = "v1beta1") -> None:
    """As plugins do: say on the agent's socket where one's own is. Raises grpc.aio.AioRpcError."""
    async with grpc.aio.insecure_channel(f"unix://{folder}/kubelet.sock") as channel:
        asked = pb.RegisterRequest(version=version, endpoint=endpoint, resource_name=plugin.resource)
        await rpc.RegistrationStub(channel).Register(asked, timeout=60)


@contextmanager
def registered_aside(plugin: FakeDevicePlugin, folder: Path, endpoint: str = "widgets.sock") -> Iterator[None]:
    """Served and registered in a thread of its own; like a real one it comes again when the agent's socket does."""
    started = threading.Event()
    stop = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def live() -> None:
        loops.append(asyncio.get_running_loop())
        while not stop.is_set():
            seen = await _socket(folder, None)
            async with serving(plugin, folder / endpoint):
                try:
                    await register(plugin, folder, endpoint)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.2)
                    continue
                started.set()
                another = asyncio.ensure_future(_socket(folder, seen))
                stopped = asyncio.ensure_future(stop.wait())
                await asyncio.wait((another, stopped), return_when=asyncio.FIRST_COMPLETED)
                another.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(live()), name="device plugin", daemon=True)
    thread.start()
    try:
        assert started.wait(60), "the plugin was not registered"
        yield
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(60)


async def _socket(folder: Path, before: tuple[int, int] | None) -> tuple[int, int]:
    """Wait for the agent's socket, another one than `before`."""
    while True:
        try:
            found = (folder / "kubelet.sock").stat()
        except OSError:
            pass
        else:
            if (now := (found.st_ino, found.st_ctime_ns)) != before:
                return now
        await asyncio.sleep(0.1)
