"""One device plugin at its socket: its options, its devices as they change, and the calls that prepare a container.

In: values of `agent.model.devices`. Out: the same. A call has a connection and a deadline of its own; the list of
devices is a stream that lasts as long as the plugin does. Failures are DriverErrors in the words of the gRPC status.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from agent.cri._generated import deviceplugin_pb2 as pb
from agent.cri._generated import deviceplugin_pb2_grpc as rpc
from agent.csi.wire import call, stream
from agent.model.devices import Device, DeviceMount, DeviceNode, DeviceSettings, PluginOptions

OPTIONS_S: Final = 10.0
ALLOCATE_S: Final = 120.0
"""The kubelet waits for ever, and admits nobody meanwhile."""
PRE_START_S: Final = 30.0
_HEALTHY: Final = "Healthy"


class PluginClient:
    """Fits `agent.model.devices.DevicePlugin`. Holds no connection but that of `watch`."""

    def __init__(self, socket_path: str) -> None:
        self._socket = socket_path

    async def options(self) -> PluginOptions:
        answer = await call(
            self._socket, lambda channel: rpc.DevicePluginStub(channel).GetDevicePluginOptions, pb.Empty(), OPTIONS_S
        )
        return PluginOptions(answer.pre_start_required, answer.get_preferred_allocation_available)

    async def watch(self) -> AsyncGenerator[tuple[Device, ...], None]:
        """All its devices, at once and after each change. Ends, or raises DriverError, when the plugin goes."""
        lists = stream(self._socket, lambda channel: rpc.DevicePluginStub(channel).ListAndWatch, pb.Empty())
        async with aclosing(lists):
            async for told in lists:
                yield tuple(
                    Device(one.ID, one.health == _HEALTHY, tuple(node.ID for node in one.topology.nodes))
                    for one in told.devices
                )

    async def prefer(self, available: tuple[str, ...], must_include: tuple[str, ...], size: int) -> tuple[str, ...]:
        asked = pb.ContainerPreferredAllocationRequest(
            available_deviceIDs=available, must_include_deviceIDs=must_include, allocation_size=size
        )
        answer = await call(
            self._socket,
            lambda channel: rpc.DevicePluginStub(channel).GetPreferredAllocation,
            pb.PreferredAllocationRequest(container_requests=[asked]),
            ALLOCATE_S,
        )
        return tuple(answer.container_responses[0].deviceIDs) if answer.container_responses else ()

    async def allocate(self, ids: tuple[str, ...]) -> DeviceSettings | None:
        answer = await call(
            self._socket,
            lambda channel: rpc.DevicePluginStub(channel).Allocate,
            pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=ids)]),
            ALLOCATE_S,
        )
        return _settings(answer.container_responses[0]) if answer.container_responses else None

    async def pre_start(self, ids: tuple[str, ...]) -> None:
        await call(
            self._socket,
            lambda channel: rpc.DevicePluginStub(channel).PreStartContainer,
            pb.PreStartContainerRequest(devices_ids=ids),
            PRE_START_S,
        )


def _settings(answer: pb.ContainerAllocateResponse) -> DeviceSettings:
    return DeviceSettings(
        env=dict(answer.envs),
        mounts=tuple(DeviceMount(one.container_path, one.host_path, one.read_only) for one in answer.mounts),
        nodes=tuple(DeviceNode(one.container_path, one.host_path, one.permissions) for one in answer.devices),
        annotations=dict(answer.annotations),
        cdi=tuple(one.name for one in answer.cdi_devices),
    )
