"""What proto/ says of CSI, plugins, devices and pod resources, held against the definitions that others build from."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from agent.cri._generated import deviceplugin_pb2, podresources_pb2, registration_pb2
from tests.integration.cri.test_wire_facts import compiled, download, facts

CSI_MODULE = "github.com/container-storage-interface/spec@v1.9.0"
KUBELET_MODULE = "k8s.io/kubelet@v0.36.3"


def test_what_is_asked_of_csi_drivers_is_upstream_s(tmp_path: Path) -> None:
    from agent.cri._generated import csi_pb2

    mine = facts(FileDescriptorProto.FromString(csi_pb2.DESCRIPTOR.serialized_pb))
    module = download(CSI_MODULE, tmp_path)
    theirs = facts(compiled(tmp_path / "set", [str(module)], ["csi.proto"])[0])
    assert {"rpc Node.NodePublishVolume", "NodePublishVolumeRequest.volume_context"} <= mine.keys()
    assert mine == {name: theirs.get(name) for name in mine}
    # Of what is here nothing is left out.
    messages = {name for name in mine if "." not in name and " " not in name}
    left_out = [name for name in theirs if name.split(".")[0] in messages and name not in mine]
    assert left_out == []
    services = {name for name in theirs if name.startswith(("rpc Identity.", "rpc Node."))}
    assert services <= mine.keys()


@pytest.mark.parametrize(
    ("mine", "folder"),
    [
        (registration_pb2.DESCRIPTOR, "pluginregistration/v1"),
        (deviceplugin_pb2.DESCRIPTOR, "deviceplugin/v1beta1"),
        (podresources_pb2.DESCRIPTOR, "podresources/v1"),
    ],
    ids=["registration", "devices", "pod resources"],
)
def test_what_plugins_and_monitoring_speak_is_upstream_s(tmp_path: Path, mine: FileDescriptor, folder: str) -> None:
    own = facts(FileDescriptorProto.FromString(mine.serialized_pb))
    module = download(KUBELET_MODULE, tmp_path)
    theirs = facts(compiled(tmp_path / "set", [str(module / "pkg/apis" / folder)], ["api.proto"])[0])
    assert len(theirs) > 10
    assert own == theirs
