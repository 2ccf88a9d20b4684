"""The node service of one CSI driver: our values in, the driver's work done, or a DriverError.

Every call may be repeated. Calls that do work have two minutes, as the kubelet gives them.
"""

from __future__ import annotations

from typing import Final

from agent.cri._generated import csi_pb2 as pb
from agent.cri._generated import csi_pb2_grpc
from agent.csi.wire import call
from agent.model.csi import Capability, DriverNode, MountCapability, PublishVolume, StageVolume

DEADLINE_S: Final = 120.0

_Mode = pb.VolumeCapability.AccessMode
_MODES: Final = {
    "ReadWriteOnce": _Mode.SINGLE_NODE_WRITER,
    "ReadOnlyMany": _Mode.MULTI_NODE_READER_ONLY,
    "ReadWriteMany": _Mode.MULTI_NODE_MULTI_WRITER,
    # Drivers that don't tell one pod from one node.
    "ReadWriteOncePod": _Mode.SINGLE_NODE_WRITER,
}
_FINE_MODES: Final = _MODES | {
    "ReadWriteOnce": _Mode.SINGLE_NODE_MULTI_WRITER,
    "ReadWriteOncePod": _Mode.SINGLE_NODE_SINGLE_WRITER,
}


class DriverClient:
    """One driver at one socket. Holds no connection."""

    def __init__(self, name: str, socket_path: str) -> None:
        self.name: Final = name
        self._socket = socket_path

    async def node_info(self) -> DriverNode:
        answer = await call(
            self._socket,
            lambda channel: csi_pb2_grpc.NodeStub(channel).NodeGetInfo,
            pb.NodeGetInfoRequest(),
            DEADLINE_S,
        )
        return DriverNode(answer.node_id, answer.max_volumes_per_node, dict(answer.accessible_topology.segments))

    async def capabilities(self) -> frozenset[Capability]:
        answer = await call(
            self._socket,
            lambda channel: csi_pb2_grpc.NodeStub(channel).NodeGetCapabilities,
            pb.NodeGetCapabilitiesRequest(),
            DEADLINE_S,
        )
        kinds = pb.NodeServiceCapability.RPC.Type
        # Of a later spec a driver may name kinds that have no name here.
        named = {kinds.Name(one.rpc.type) for one in answer.capabilities if one.rpc.type in kinds.values()}
        return frozenset(capability for capability in Capability if capability.value in named)

    async def stage(self, volume: StageVolume, capabilities: frozenset[Capability]) -> None:
        request = pb.NodeStageVolumeRequest(
            volume_id=volume.volume_id,
            publish_context=volume.publish_context,
            staging_target_path=volume.staging_path,
            volume_capability=_capability(volume.capability, capabilities),
            secrets=volume.secrets,
            volume_context=volume.volume_context,
        )
        await call(self._socket, lambda channel: csi_pb2_grpc.NodeStub(channel).NodeStageVolume, request, DEADLINE_S)

    async def unstage(self, volume_id: str, staging_path: str) -> None:
        request = pb.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=staging_path)
        await call(self._socket, lambda channel: csi_pb2_grpc.NodeStub(channel).NodeUnstageVolume, request, DEADLINE_S)

    async def publish(self, volume: PublishVolume, capabilities: frozenset[Capability]) -> None:
        request = pb.NodePublishVolumeRequest(
            volume_id=volume.volume_id,
            publish_context=volume.publish_context,
            staging_target_path=volume.staging_path,
            target_path=volume.target_path,
            volume_capability=_capability(volume.capability, capabilities),
            readonly=volume.read_only,
            secrets=volume.secrets,
            volume_context=volume.volume_context,
        )
        await call(self._socket, lambda channel: csi_pb2_grpc.NodeStub(channel).NodePublishVolume, request, DEADLINE_S)

    async def unpublish(self, volume_id: str, target_path: str) -> None:
        request = pb.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=target_path)
        await call(
            self._socket, lambda channel: csi_pb2_grpc.NodeStub(channel).NodeUnpublishVolume, request, DEADLINE_S
        )


def _capability(wanted: MountCapability, capabilities: frozenset[Capability]) -> pb.VolumeCapability:
    modes = _FINE_MODES if Capability.SINGLE_NODE_MULTI_WRITER in capabilities else _MODES
    return pb.VolumeCapability(
        access_mode=_Mode(mode=modes.get(wanted.access_mode, _Mode.UNKNOWN)),
        mount=pb.VolumeCapability.MountVolume(
            fs_type=wanted.fs_type,
            mount_flags=wanted.mount_flags,
            volume_mount_group="" if wanted.group is None else str(wanted.group),
        ),
    )
