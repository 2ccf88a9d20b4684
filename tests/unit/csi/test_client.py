"""What a driver hears, and what its refusals become."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from agent.cri._generated import csi_pb2 as pb
from agent.csi import registrar
from agent.csi.client import DriverClient
from agent.csi.wire import go_name
from agent.model.csi import Capability, DriverError, DriverNode, MountCapability, PluginInfo, PublishVolume, StageVolume
from tests.fakes.csi import FakeDriver, Rpc, driving

Mode = pb.VolumeCapability.AccessMode


@dataclass
class Rig:
    driver: FakeDriver
    client: DriverClient
    socket: str


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    # pytest's own folders are too deep for the path of a socket.
    with tempfile.TemporaryDirectory(prefix="csi-") as registry:
        driver = FakeDriver(tmp_path / "volumes")
        async with driving(driver, Path(registry)) as socket:
            yield Rig(driver, DriverClient(driver.name, str(socket)), str(socket))


async def test_a_plugin_says_who_it_is_and_hears_whether_it_was_taken(rig: Rig) -> None:
    assert await registrar.get_info(rig.socket) == PluginInfo("CSIPlugin", "hostpath.csi.k8s.io", "", ("1.0.0",))
    await registrar.notify(rig.socket)
    await registrar.notify(rig.socket, "no such type")
    assert [(status.plugin_registered, status.error) for status in rig.driver.told] == [
        (True, ""),
        (False, "no such type"),
    ]


async def test_a_driver_tells_the_machine_s_name_limit_and_topology(rig: Rig) -> None:
    rig.driver.max_volumes = 7
    assert await rig.client.node_info() == DriverNode("csi-node-1", 7, {"topology.hostpath.csi/node": "csi-node-1"})


async def test_capabilities_that_nobody_here_knows_are_passed_over(rig: Rig) -> None:
    rig.driver.can = (Rpc.STAGE_UNSTAGE_VOLUME, Rpc.GET_VOLUME_STATS, 99)  # type: ignore[assignment]
    assert await rig.client.capabilities() == {Capability.STAGE_UNSTAGE_VOLUME}


@pytest.mark.parametrize(
    ("mode", "plain", "fine"),
    [
        ("ReadWriteOnce", Mode.SINGLE_NODE_WRITER, Mode.SINGLE_NODE_MULTI_WRITER),
        ("ReadWriteOncePod", Mode.SINGLE_NODE_WRITER, Mode.SINGLE_NODE_SINGLE_WRITER),
        ("ReadOnlyMany", Mode.MULTI_NODE_READER_ONLY, Mode.MULTI_NODE_READER_ONLY),
        ("ReadWriteMany", Mode.MULTI_NODE_MULTI_WRITER, Mode.MULTI_NODE_MULTI_WRITER),
    ],
)
async def test_access_modes_are_said_as_finely_as_the_driver_understands(
    rig: Rig, tmp_path: Path, mode: str, plain: int, fine: int
) -> None:
    volume = StageVolume("v", str(tmp_path), MountCapability(access_mode=mode))
    await rig.client.stage(volume, frozenset())
    await rig.client.stage(volume, frozenset({Capability.SINGLE_NODE_MULTI_WRITER}))
    assert [call.volume_capability.access_mode.mode for call in rig.driver.calls] == [plain, fine]


async def test_everything_that_a_volume_needs_reaches_the_driver(rig: Rig, tmp_path: Path) -> None:
    capability = MountCapability("ReadWriteMany", "xfs", ("noatime",), group=2000)
    await rig.client.stage(
        StageVolume("v", str(tmp_path), capability, {"lun": "1"}, {"tier": "fast"}, {"key": "s3cret"}), frozenset()
    )
    target = str(tmp_path / "mount")
    await rig.client.publish(
        PublishVolume("v", target, capability, True, str(tmp_path), {"lun": "1"}, {"tier": "fast"}, {"key": "s3cret"}),
        frozenset(),
    )
    staged, published = rig.driver.calls
    mount = pb.VolumeCapability.MountVolume(fs_type="xfs", mount_flags=["noatime"], volume_mount_group="2000")
    wanted = pb.VolumeCapability(access_mode=Mode(mode=Mode.MULTI_NODE_MULTI_WRITER), mount=mount)
    assert staged == pb.NodeStageVolumeRequest(
        volume_id="v",
        staging_target_path=str(tmp_path),
        volume_capability=wanted,
        publish_context={"lun": "1"},
        volume_context={"tier": "fast"},
        secrets={"key": "s3cret"},
    )
    assert published == pb.NodePublishVolumeRequest(
        volume_id="v",
        staging_target_path=str(tmp_path),
        target_path=target,
        readonly=True,
        volume_capability=wanted,
        publish_context={"lun": "1"},
        volume_context={"tier": "fast"},
        secrets={"key": "s3cret"},
    )
    await rig.client.unpublish("v", target)
    await rig.client.unstage("v", str(tmp_path))
    assert rig.driver.published == {}
    assert rig.driver.staged == set()


def test_secrets_and_tokens_are_not_in_what_a_log_would_show() -> None:
    publish = PublishVolume("v", "/t", MountCapability(), volume_context={"t": "t0ken"}, secrets={"k": "s3cret"})
    stage = StageVolume("v", "/t", MountCapability(), secrets={"k": "s3cret"})
    assert "s3cret" not in repr(publish) + repr(stage)
    assert "t0ken" not in repr(publish)


@pytest.mark.parametrize(
    ("code", "name", "final"),
    [
        (grpc.StatusCode.INTERNAL, "Internal", True),
        (grpc.StatusCode.INVALID_ARGUMENT, "InvalidArgument", True),
        (grpc.StatusCode.ABORTED, "Aborted", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "ResourceExhausted", False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DeadlineExceeded", False),
    ],
)
async def test_a_refusal_reads_as_kubelets_show_it_and_says_whether_anything_was_done(
    rig: Rig, tmp_path: Path, code: grpc.StatusCode, name: str, final: bool
) -> None:
    rig.driver.failures["NodeStageVolume"] = (code, "no device")
    with pytest.raises(DriverError) as refusal:
        await rig.client.stage(StageVolume("v", str(tmp_path), MountCapability()), frozenset())
    assert str(refusal.value) == f"rpc error: code = {name} desc = no device"
    assert refusal.value.final is final


async def test_a_driver_that_is_gone_may_have_done_it(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="code = Unavailable") as refusal:
        await DriverClient("d", str(tmp_path / "none.sock")).node_info()
    assert refusal.value.final is False


def test_status_codes_are_named_as_grpc_for_go_does() -> None:
    assert (go_name(grpc.StatusCode.OK), go_name(grpc.StatusCode.CANCELLED)) == ("OK", "Canceled")
