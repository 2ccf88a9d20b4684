"""Volumes of CSI drivers: a driver that registers, pods that use its volumes, and everything taken back.

The driver answers on a real socket and binds folders, as the hostpath driver does; the control plane's own controllers
bind claims and make attachments, and the test stands in for the driver's attacher.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.node.csi_node import NODE_ID_ANNOTATION
from agent.pods.volumes.csi_plan import attachment_name, unique_name
from tests.fakes.csi import TOPOLOGY, FakeDriver, driving_aside
from tests.integration.agent.edge import SLEEP, Edge, Object, container, pod
from tests.integration.support.waiting import wait_until

CSI_NODES = "/apis/storage.k8s.io/v1/csinodes"
ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"
MOUNTED: dict[str, Any] = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
WRITES = f"echo written > /data/file; {SLEEP}"


@pytest.fixture
def driver(guest: Edge, tmp_path: Path) -> Iterator[FakeDriver]:
    """Registered on the node, and forgotten after the test."""
    made = FakeDriver(tmp_path / "volumes", f"{guest.namespace}.csi.test", f"id-of-{guest.node}", mounts=True)
    made.max_volumes = 9
    with driving_aside(made, guest.agent.root_dir / "plugins_registry"):
        wait_until(lambda: made.told, what="the driver is registered")
        yield made
    for target in list(made.published):  # of a test that failed
        made.end(target)


@contextmanager
def objects(edge: Edge, *made: Object) -> Iterator[None]:
    edge.apply(*made)
    try:
        yield
    finally:
        for one in made:
            if one["kind"] != "PersistentVolumeClaim":
                edge.kubectl("delete", one["kind"], one["metadata"]["name"], "--wait=false", check=False)


def csi_driver(name: str, **spec: Any) -> Object:
    return {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": name}, "spec": spec}


def provisioned(edge: Edge, driver: str, **source: Any) -> tuple[Object, Object]:
    """A volume that was made by hand, and the claim on it."""
    size = {"storage": "1Gi"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pv-{edge.namespace}"},
        "spec": {
            "capacity": size,
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "by-hand",
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": edge.namespace, "name": "data"},
            "csi": {"driver": driver, "volumeHandle": f"vol-{edge.namespace}", "fsType": "ext4", **source},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": size}, "storageClassName": "by-hand"},
    }
    return volume, claim


def by_claim(name: str, **spec: Any) -> Object:
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    return pod(name, container(WRITES, **MOUNTED), volumes=[volume], **spec)


def left(edge: Edge) -> list[Path]:
    """Everything of CSI volumes below the agent's folder."""
    root = edge.agent.root_dir
    return [*root.glob("pods/*/volumes/kubernetes.io~csi/*"), *root.glob("plugins/kubernetes.io/csi/*/*/*")]


def mounts_below(folder: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {folder}/" in line]


def kinds(driver: FakeDriver) -> list[str]:
    return [type(call).__name__.removesuffix("Request") for call in driver.calls]


def test_a_claim_s_volume_is_staged_published_and_taken_back_over_a_restart(guest: Edge, driver: FakeDriver) -> None:
    entry = next(one for one in guest.get(f"{CSI_NODES}/{guest.node}")["spec"]["drivers"] if one["name"] == driver.name)
    assert entry == {
        "name": driver.name,
        "nodeID": driver.node_id,
        "topologyKeys": [TOPOLOGY],
        "allocatable": {"count": 9},
    }
    node = guest.get(f"/api/v1/nodes/{guest.node}")
    assert json.loads(node["metadata"]["annotations"][NODE_ID_ANNOTATION])[driver.name] == driver.node_id
    assert node["metadata"]["labels"][TOPOLOGY] == driver.node_id

    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys"},
        "stringData": {"key": "s3cret"},
    }
    reference = {"name": "keys", "namespace": guest.namespace}
    volume, claim = provisioned(guest, driver.name, nodePublishSecretRef=reference)
    handle = volume["spec"]["csi"]["volumeHandle"]
    known = csi_driver(driver.name, attachRequired=False, podInfoOnMount=True, fsGroupPolicy="File")
    with objects(guest, secret, known, volume, claim):
        guest.run(by_claim("web", securityContext={"fsGroup": 4242}))
        guest.wait_ready("web")
        written = driver.volume(handle) / "file"
        assert written.read_text() == "written\n"
        assert written.stat().st_gid == 4242  # the folder's setgid bit hands it on
        [publish] = driver.calls[1:]
        assert dict(publish.secrets) == {"key": "s3cret"}
        assert publish.volume_context["csi.storage.k8s.io/pod.name"] == "web"

        guest.agent.kill9()
        driver.told.clear()
        guest.agent.start()
        guest.agent.wait_ready()
        wait_until(lambda: driver.told, what="the driver is registered again")
        guest.wait_ready("web")
        assert kinds(driver) == ["NodeStageVolume", "NodePublishVolume"]

        guest.delete("pod", "web", "--grace-period=2")
        guest.wait_gone("web")
    assert kinds(driver)[2:] == ["NodeUnpublishVolume", "NodeUnstageVolume"]
    assert written.read_text() == "written\n"
    assert left(guest) == []
    assert mounts_below(guest.agent.root_dir) == []


def test_a_volume_waits_for_its_attachment_and_is_detached_after_its_pod(guest: Edge, driver: FakeDriver) -> None:
    volume, claim = provisioned(guest, driver.name)
    handle = volume["spec"]["csi"]["volumeHandle"]
    name, unique = attachment_name(handle, driver.name, guest.node), unique_name(driver.name, handle)

    def attachment() -> Object | None:
        return next((one for one in guest.get(ATTACHMENTS)["items"] if one["metadata"]["name"] == name), None)

    def in_use() -> bool:
        return unique in guest.get(f"/api/v1/nodes/{guest.node}")["status"].get("volumesInUse", ())

    with objects(guest, csi_driver(driver.name, attachRequired=True), volume, claim):
        guest.run(by_claim("web"))
        wait_until(attachment, what="the control plane asks for the attachment")
        wait_until(in_use, what="the node says that the volume is in use")
        assert driver.calls == []
        said = {"status": {"attached": True, "attachmentMetadata": {"lun": "7"}}}
        guest.kubectl("patch", "volumeattachment", name, "--subresource=status", "--type=merge", "-p", json.dumps(said))
        guest.wait_ready("web")
        assert [dict(call.publish_context) for call in driver.calls] == [{"lun": "7"}, {"lun": "7"}]
        guest.delete("pod", "web", "--grace-period=2")
        guest.wait_gone("web")
        assert kinds(driver)[2:] == ["NodeUnpublishVolume", "NodeUnstageVolume"]
        wait_until(lambda: not in_use(), what="the volume is in use no more")
        wait_until(lambda: attachment() is None, what="the control plane takes the attachment back")
    assert left(guest) == []


def test_an_inline_volume_waits_for_its_driver_and_ends_with_its_pod(
    guest: Edge, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name = f"{guest.namespace}.csi.test"
    known = csi_driver(name, attachRequired=False, podInfoOnMount=True, volumeLifecycleModes=["Ephemeral"])
    inline = {"name": "data", "csi": {"driver": name, "volumeAttributes": {"size": "1"}}}
    with objects(guest, known):
        guest.run(pod("web", container(WRITES, **MOUNTED), volumes=[inline]))
        told = (
            'MountVolume.SetUp failed for volume "data" : kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: '
            f"driver name {name} not found in the list of registered CSI drivers"
        )
        wait_until(lambda: ("FailedMount", told) in guest.events("web"), what="the missing driver is named")
        driver: FakeDriver = request.getfixturevalue("driver")
        guest.wait_ready("web")
        [publish] = driver.calls
        assert (Path(driver.folder) / publish.volume_id / "file").read_text() == "written\n"
        assert publish.volume_context["csi.storage.k8s.io/ephemeral"] == "true"
        guest.delete("pod", "web", "--grace-period=2")
        guest.wait_gone("web")
    assert kinds(driver) == ["NodePublishVolume", "NodeUnpublishVolume"]
    assert not (Path(driver.folder) / publish.volume_id).exists()
    assert left(guest) == []


def test_a_driver_that_goes_is_no_longer_named(guest: Edge, tmp_path: Path) -> None:
    made = FakeDriver(tmp_path / "volumes", f"{guest.namespace}.csi.test", f"id-of-{guest.node}")

    def named() -> list[str]:
        return [one["name"] for one in guest.get(f"{CSI_NODES}/{guest.node}")["spec"]["drivers"] or ()]

    with driving_aside(made, guest.agent.root_dir / "plugins_registry"):
        wait_until(lambda: made.told, what="the driver is registered")
        assert made.name in named()
    wait_until(lambda: made.name not in named(), what="the driver is forgotten")
