"""The two calls on a plugin's registration socket (pluginregistration, v1): who it is, and whether it was taken."""

from __future__ import annotations

from typing import Final

from agent.cri._generated import registration_pb2, registration_pb2_grpc
from agent.csi.wire import call
from agent.model.csi import PluginInfo

DEADLINE_S: Final = 5.0
"""The kubelet gives one second; a machine at the edge that has just started is slower than that."""


async def get_info(socket_path: str) -> PluginInfo:
    """Raises DriverError."""
    answer = await call(
        socket_path,
        lambda channel: registration_pb2_grpc.RegistrationStub(channel).GetInfo,
        registration_pb2.InfoRequest(),
        DEADLINE_S,
    )
    return PluginInfo(answer.type, answer.name, answer.endpoint, tuple(answer.supported_versions))


async def notify(socket_path: str, error: str = "") -> None:
    """Tell the plugin that it is registered, or why it is not. Raises DriverError."""
    await call(
        socket_path,
        lambda channel: registration_pb2_grpc.RegistrationStub(channel).NotifyRegistrationStatus,
        registration_pb2.RegistrationStatus(plugin_registered=not error, error=error),
        DEADLINE_S,
    )
