"""CSI volumes of pods: what a driver on a real socket hears, what lies on the disk, and how all of it ends."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest

from agent.csi.client import DriverClient
from agent.errors import EdgeletError, Forbidden, NotFound, Permanent, Retryable
from agent.model.objects import ObjectKey, Service, Token
from agent.model.pod import Pod, pod_from_dict
from agent.node.attached import AttachedVolumes
from agent.pods.downward import NodeContext
from agent.pods.references import fetch
from agent.pods.volumes.csi import CsiVolumes
from agent.pods.volumes.csi_plan import attachment_name
from agent.pods.volumes.pod_volumes import PodVolumes
from tests.fakes.csi import FakeDriver, Rpc, driving
from tests.fakes.waiting import PATIENCE_S
from tests.unit.pods.volumes.fake_mounts import FakeMounts

NODE = "edge-1"
DRIVER = "hostpath.csi.k8s.io"
HANDLE = "vol-1"
UNIQUE = f"kubernetes.io/csi/{DRIVER}^{HANDLE}"
STAGING = f"plugins/kubernetes.io/csi/{DRIVER}/{hashlib.sha256(HANDLE.encode()).hexdigest()}"
CLAIM = ObjectKey("persistentvolumeclaims", "shop", "data")
VOLUME = ObjectKey("persistentvolumes", "", "pv-1")
CSI_DRIVER = ObjectKey("csidrivers", "", DRIVER)
ATTACHMENT = ObjectKey("volumeattachments", "", attachment_name(HANDLE, DRIVER, NODE))
SECRET = ObjectKey("secrets", "vault", "keys")
CONTEXT = NodeContext(NODE, ("10.0.0.1",), allocatable={"memory": "1Gi"})


@dataclass
class Objects:
    """What the API server has; an error stands for itself."""

    held: dict[ObjectKey, dict[str, Any] | EdgeletError] = field(default_factory=dict)
    retained: dict[str, frozenset[ObjectKey]] = field(default_factory=dict)

    async def get(self, key: ObjectKey) -> bytes:
        match self.held.get(key):
            case None:
                raise NotFound(f'{key.kind} "{key.name}" not found')
            case EdgeletError() as error:
                raise error
            case found:
                return msgspec.json.encode({"metadata": {"name": key.name, "namespace": key.namespace}, **found})

    def retain(self, pod_uid: str, keys: Iterable[ObjectKey]) -> None:
        self.retained[pod_uid] = frozenset(keys)

    def release(self, pod_uid: str) -> None:
        self.retained.pop(pod_uid, None)

    async def services(self, namespace: str) -> tuple[Service, ...]:
        return ()


class Tokens:
    async def token(self, pod: Pod, audience: str, expiration_s: int) -> Token:
        return Token(f"t0ken for {audience or 'api'} {expiration_s}", 1_700_000_000.0)

    async def forget(self, pod_uid: str) -> None:
        """Nothing is held."""


@dataclass
class Drivers:
    known: dict[str, DriverClient] = field(default_factory=dict)

    def find(self, driver: str) -> DriverClient | None:
        return self.known.get(driver)

    def listen(self, changed: Callable[[], None]) -> None:
        """Nobody comes later."""


@dataclass
class Rig:
    root: Path
    driver: FakeDriver
    drivers: Drivers
    objects: Objects = field(default_factory=Objects)
    mounts: FakeMounts = field(default_factory=FakeMounts)

    def __post_init__(self) -> None:
        self.client = self.drivers.known[DRIVER]
        self.make()

    def make(self) -> None:
        """An agent that starts."""
        self.attached = AttachedVolumes()
        self.volumes = PodVolumes(self.root, self.mounts, csi=self._csi)

    def _csi(self, root: Path, mounts: Any) -> CsiVolumes:
        return CsiVolumes(root, NODE, self.drivers, self.attached, self.objects, Tokens(), mounts)

    def has(self, pv: dict[str, Any] | None = None, driver: dict[str, Any] | None = None, **source: Any) -> None:
        """The API server has the claim, its volume and the CSIDriver."""
        csi = {"driver": DRIVER, "volumeHandle": HANDLE, **source}
        self.objects.held[CLAIM] = {
            "metadata": {"name": "data", "namespace": "shop", "uid": "c-1"},
            "spec": {"volumeName": "pv-1"},
            "status": {"phase": "Bound"},
        }
        self.objects.held[VOLUME] = {
            "spec": {"csi": csi, "accessModes": ["ReadWriteOnce"], "claimRef": {"uid": "c-1"}, **(pv or {})}
        }
        self.objects.held[CSI_DRIVER] = {"spec": {"attachRequired": False, **(driver or {})}}

    async def run(self, pod: Pod) -> dict[str, Path]:
        referenced = await fetch(pod, self.objects, None)
        paths = await self.volumes.set_up(pod, referenced, CONTEXT)
        await self.volumes.bring(pod, referenced, CONTEXT)
        return dict(paths)

    async def refresh(self, pod: Pod) -> None:
        await self.volumes.refresh(pod, await fetch(pod, self.objects, None), CONTEXT)

    @property
    def in_use(self) -> set[str] | None:
        return None if self.attached.in_use is None else set(self.attached.in_use)

    def files(self) -> set[str]:
        places = [self.root / "pods", self.root / "plugins"]
        return {str(path.relative_to(self.root)) for place in places for path in place.rglob("*") if path.is_file()}

    def data(self, folder: str) -> dict[str, str]:
        return dict(json.loads((self.root / folder / "vol_data.json").read_text()))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        registry = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="csi-")))
        driver = FakeDriver(tmp_path / "volumes")
        socket = await stack.enter_async_context(driving(driver, registry))
        yield Rig(tmp_path / "root", driver, Drivers({DRIVER: DriverClient(DRIVER, str(socket))}))


def pod(uid: str = "u-1", *, claim: dict[str, Any] | None = None, **spec: Any) -> Pod:
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data", **(claim or {})}}]
    return _pod(uid, volumes=volumes, **spec)


def inline(uid: str = "u-1", **source: Any) -> Pod:
    return _pod(uid, volumes=[{"name": "v", "csi": {"driver": DRIVER, **source}}])


def _pod(uid: str, **spec: Any) -> Pod:
    return pod_from_dict(
        {
            "metadata": {"name": "web", "namespace": "shop", "uid": uid},
            "spec": {"containers": [{"name": "main", "image": "i"}], "serviceAccountName": "clerk", **spec},
        }
    )


def kinds(rig: Rig) -> list[str]:
    return [type(call).__name__.removesuffix("Request") for call in rig.driver.calls]


# ------------------------------------------------------------ there and back


async def test_a_volume_is_staged_published_and_taken_back_where_a_kubelet_would(rig: Rig) -> None:
    rig.has(volumeAttributes={"tier": "fast"}, fsType="xfs", pv={"mountOptions": ["noatime"]})
    paths = await rig.run(pod(claim={"readOnly": True}))
    folder = "pods/u-1/volumes/kubernetes.io~csi/pv-1"
    assert paths == {"v": rig.root / folder / "mount"}
    stage, publish = rig.driver.calls
    assert stage.staging_target_path == str(rig.root / STAGING / "globalmount")
    assert (publish.staging_target_path, publish.target_path) == (stage.staging_target_path, str(paths["v"]))
    assert publish.readonly
    assert dict(publish.volume_context) == dict(stage.volume_context) == {"tier": "fast"}
    for call in (stage, publish):
        assert call.volume_id == HANDLE
        assert (call.volume_capability.mount.fs_type, list(call.volume_capability.mount.mount_flags)) == (
            "xfs",
            ["noatime"],
        )
    assert rig.data(folder) == {
        "specVolID": "pv-1",
        "volumeHandle": HANDLE,
        "driverName": DRIVER,
        "nodeName": NODE,
        "attachmentID": ATTACHMENT.name,
        "volumeLifecycleMode": "Persistent",
    }
    assert rig.data(STAGING) == {"volumeHandle": HANDLE, "driverName": DRIVER}
    await rig.volumes.tear_down("u-1")
    assert kinds(rig) == ["NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume"]
    assert rig.driver.published == {}
    assert rig.driver.staged == set()
    assert rig.files() == set()
    assert not (rig.root / STAGING).exists()
    assert rig.volumes.pods_on_disk() == set()


async def test_a_driver_that_stages_nothing_is_not_asked_to(rig: Rig) -> None:
    rig.driver.can = ()
    rig.has()
    await rig.run(pod())
    assert rig.driver.calls[0].staging_target_path == ""
    await rig.volumes.tear_down("u-1")
    assert kinds(rig) == ["NodePublishVolume", "NodeUnpublishVolume"]
    assert rig.files() == set()


async def test_a_volume_is_unstaged_after_the_last_of_its_pods(rig: Rig) -> None:
    rig.has()
    await rig.run(pod("u-1"))
    await rig.run(pod("u-2"))
    await rig.volumes.tear_down("u-1")
    assert "NodeUnstageVolume" not in kinds(rig)
    await rig.volumes.tear_down("u-2")
    assert kinds(rig)[-1] == "NodeUnstageVolume"


async def test_an_agent_that_was_started_anew_takes_back_what_an_earlier_one_published(rig: Rig) -> None:
    rig.has()
    await rig.run(pod())
    rig.make()
    await rig.volumes.recall()
    await rig.volumes.tear_down("u-1")
    assert kinds(rig)[2:] == ["NodeUnpublishVolume", "NodeUnstageVolume"]
    assert rig.files() == set()


async def test_a_volume_left_staged_by_an_agent_that_ended_is_unstaged_with_the_next_pod(rig: Rig) -> None:
    rig.has()
    await rig.run(pod())
    rig.driver.failures["NodeUnstageVolume"] = (grpc.StatusCode.INTERNAL, "busy")
    with pytest.raises(Retryable, match=r"UnmountDevice failed .* desc = busy"):
        await rig.volumes.tear_down("u-1")
    rig.make()
    await rig.volumes.recall()
    rig.driver.failures.clear()
    await rig.volumes.tear_down("u-other")
    assert rig.driver.staged == set()
    assert rig.files() == set()


async def test_a_volume_that_is_mounted_already_is_not_published_again(rig: Rig) -> None:
    rig.has()
    paths = await rig.run(pod())
    rig.mounts.bound[paths["v"]] = paths["v"]
    before = len(rig.driver.calls)
    rig.make()
    assert await rig.run(pod()) == paths
    assert len(rig.driver.calls) == before


async def test_nothing_is_removed_while_the_driver_left_it_mounted(rig: Rig) -> None:
    rig.has()
    paths = await rig.run(pod())
    rig.mounts.bound[paths["v"]] = paths["v"]
    with pytest.raises(Retryable, match="failed to clean mount dir"):
        await rig.volumes.tear_down("u-1")
    assert rig.files()
    rig.mounts.bound.clear()
    await rig.volumes.tear_down("u-1")
    assert rig.files() == set()


async def test_parts_of_the_volume_shown_elsewhere_are_unmounted_before_the_driver_is_asked(rig: Rig) -> None:
    rig.has()
    paths = await rig.run(pod())
    (paths["v"] / "part").mkdir()
    shown = await rig.volumes.prepare_subpath(pod(), "main", 0, "v", paths["v"], "part")
    assert shown in rig.mounts.bound
    (paths["v"] / "part").rmdir()
    rig.mounts.busy.add(shown)
    with pytest.raises(Retryable, match="can't unmount"):
        await rig.volumes.tear_down("u-1")
    assert "NodeUnpublishVolume" not in kinds(rig)
    rig.mounts.busy.clear()
    await rig.volumes.tear_down("u-1")
    assert rig.mounts.bound == {}


async def test_data_that_cannot_be_read_stop_the_end_instead_of_leaving_a_mount(rig: Rig) -> None:
    rig.has()
    await rig.run(pod())
    file = rig.root / "pods/u-1/volumes/kubernetes.io~csi/pv-1/vol_data.json"
    file.write_text("{broken")
    rig.make()
    await rig.volumes.recall()
    with pytest.raises(Retryable, match=r"vol_data\.json"):
        await rig.volumes.tear_down("u-1")
    assert rig.attached.in_use is None
    assert file.exists()


# ------------------------------------------------------------ what goes wrong


async def test_a_driver_that_is_not_registered_is_named_in_the_kubelet_s_words(rig: Rig) -> None:
    rig.has(driver={"volumeLifecycleModes": ["Persistent", "Ephemeral"]})
    await rig.run(pod("u-2"))
    rig.drivers.known.clear()
    missing = f"driver name {DRIVER} not found in the list of registered CSI drivers"
    with pytest.raises(Retryable) as refusal:
        await rig.run(pod())
    assert str(refusal.value) == (
        'MountVolume.MountDevice failed for volume "pv-1" : kubernetes.io/csi: attacher.MountDevice failed to create '
        f"newCsiDriverClient: {missing}"
    )
    with pytest.raises(Retryable) as refusal:
        await rig.run(inline())
    assert str(refusal.value) == (
        'MountVolume.SetUp failed for volume "v" : kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: '
        f"{missing}"
    )
    with pytest.raises(Retryable) as refusal:
        await rig.volumes.tear_down("u-2")
    assert str(refusal.value) == (
        'UnmountVolume.TearDown failed for volume "pv-1" : kubernetes.io/csi: Unmounter.TearDownAt failed to get CSI '
        f"client: {missing}"
    )


@pytest.mark.parametrize(("method", "step"), [("NodeStageVolume", "MountDevice"), ("NodePublishVolume", "SetUp")])
async def test_a_refusal_leaves_nothing_behind_and_reads_as_a_kubelet_s(rig: Rig, method: str, step: str) -> None:
    rig.has()
    rig.driver.failures[method] = (grpc.StatusCode.INTERNAL, "no device")
    with pytest.raises(Retryable) as refusal:
        await rig.run(pod())
    assert str(refusal.value) == (
        f'MountVolume.{step} failed for volume "pv-1" : rpc error: code = Internal desc = no device'
    )
    assert not (rig.root / "pods/u-1/volumes/kubernetes.io~csi/pv-1").exists()
    rig.driver.failures.clear()
    await rig.run(pod())
    await rig.volumes.tear_down("u-1")
    assert rig.files() == set()


async def test_after_an_answer_that_may_have_been_lost_the_driver_is_asked_to_undo_it(rig: Rig) -> None:
    rig.has()
    rig.driver.failures["NodePublishVolume"] = (grpc.StatusCode.DEADLINE_EXCEEDED, "late")
    with pytest.raises(Retryable, match="DeadlineExceeded"):
        await rig.run(pod())
    await rig.volumes.tear_down("u-1")
    assert kinds(rig)[-2:] == ["NodeUnpublishVolume", "NodeUnstageVolume"]
    assert rig.files() == set()


async def test_one_driver_that_is_gone_holds_up_no_pod_of_another(rig: Rig) -> None:
    rig.has()
    await rig.run(pod("u-1"))
    rig.driver.failures["NodeUnstageVolume"] = (grpc.StatusCode.INTERNAL, "busy")
    with pytest.raises(Retryable):
        await rig.volumes.tear_down("u-1")
    await rig.volumes.tear_down("u-2")  # has no such volume


@pytest.mark.parametrize(
    ("pv", "driver", "message"),
    [
        ({"volumeMode": "Block"}, {}, "CSI volumes of volumeMode Block are not supported by this node"),
        ({}, {"volumeLifecycleModes": ["Ephemeral"]}, 'volume mode "Persistent" not supported by driver'),
        ({}, {"fsGroupPolicy": "Later"}, "fsGroupPolicy 'Later'"),
    ],
)
async def test_what_cannot_be_done_is_refused_before_anybody_is_asked(
    rig: Rig, pv: dict[str, Any], driver: dict[str, Any], message: str
) -> None:
    rig.has(pv, driver)
    with pytest.raises(Permanent, match=message):
        await rig.run(pod(securityContext={"fsGroup": 1}))
    assert rig.driver.calls == []


async def test_a_standalone_node_says_why_it_has_no_such_volumes(rig: Rig) -> None:
    rig.has()
    rig.volumes = PodVolumes(rig.root, rig.mounts)
    with pytest.raises(Permanent, match="need an API server"):
        await rig.run(pod())


# ------------------------------------------------------------ attachment


async def test_a_volume_is_mounted_only_when_the_node_has_it_in_use_and_attached(rig: Rig) -> None:
    rig.has(driver={"attachRequired": True})
    rig.objects.held[ATTACHMENT] = {"status": {"attached": True, "attachmentMetadata": {"lun": "7"}}}
    await rig.volumes.recall()
    running = asyncio.ensure_future(rig.run(pod()))
    async with asyncio.timeout(PATIENCE_S):
        while rig.attached.in_use is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert rig.in_use == {UNIQUE}
    attached = [{"name": UNIQUE, "devicePath": ""}]
    rig.attached.seen({"status": {"volumesAttached": attached}})
    await asyncio.sleep(0.02)
    assert rig.driver.calls == []
    rig.attached.seen({"status": {"volumesInUse": [UNIQUE], "volumesAttached": attached}})
    await running
    assert [dict(call.publish_context) for call in rig.driver.calls] == [{"lun": "7"}, {"lun": "7"}]
    assert list(rig.objects.retained.values()) == [frozenset({ATTACHMENT})]
    await rig.volumes.tear_down("u-1")
    assert rig.in_use == set()
    assert rig.objects.retained == {}


async def test_a_driver_without_a_csidriver_object_is_attached_to(rig: Rig) -> None:
    rig.has()
    del rig.objects.held[CSI_DRIVER]
    running = asyncio.ensure_future(rig.run(pod()))
    await rig.volumes.recall()
    async with asyncio.timeout(PATIENCE_S):
        while rig.attached.in_use is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    # Its pod is deleted while it waits: nothing is in use any more.
    rig.attached.seen({"status": {"volumesInUse": [UNIQUE]}})
    await rig.volumes.tear_down("u-1")
    assert rig.attached.in_use == ()


@pytest.mark.parametrize(
    ("attachment", "message"),
    [
        (None, "has GET error for volume attachment"),
        (Forbidden("Forbidden", "no relationship found"), "no relationship found"),
        ({"status": {"attached": False}}, "is not attached for volume attachment"),
        ({"status": {"attached": False, "attachError": {"message": "no such disk"}}}, "no such disk"),
    ],
)
async def test_an_attachment_that_is_not_there_is_waited_for(rig: Rig, attachment: Any, message: str) -> None:
    rig.has(driver={"attachRequired": True})
    if attachment is not None:
        rig.objects.held[ATTACHMENT] = attachment
    rig.attached.seen({"status": {"volumesInUse": [UNIQUE], "volumesAttached": [{"name": UNIQUE}]}})
    with pytest.raises(Retryable, match=f'MountVolume.WaitForAttach failed for volume "pv-1" : .*{message}'):
        await rig.run(pod())
    assert rig.driver.calls == []


async def test_after_a_restart_the_volumes_of_before_are_still_in_use(rig: Rig) -> None:
    rig.has()
    await rig.run(pod())
    rig.make()
    assert rig.attached.in_use is None
    await rig.volumes.recall()
    assert rig.attached.in_use == (UNIQUE,)
    assert list(rig.objects.retained.values())[-1] == {ATTACHMENT}


# ------------------------------------------------------------ what the driver is told


async def test_an_inline_volume_is_published_with_its_pod_s_name_and_ends_with_it(rig: Rig) -> None:
    rig.has(driver={"volumeLifecycleModes": ["Ephemeral"], "podInfoOnMount": True})
    rig.objects.held[ObjectKey("secrets", "shop", "keys")] = {"data": {"key": "czNjcmV0"}}
    mine = inline(fsType="ext4", volumeAttributes={"size": "1"}, nodePublishSecretRef={"name": "keys"}, readOnly=True)
    paths = await rig.run(mine)
    assert paths == {"v": rig.root / "pods/u-1/volumes/kubernetes.io~csi/v/mount"}
    [publish] = rig.driver.calls
    assert publish.volume_id == "csi-" + hashlib.sha256(b"u-1v").hexdigest()
    assert publish.readonly
    assert publish.staging_target_path == ""
    assert dict(publish.secrets) == {"key": "s3cret"}
    assert dict(publish.volume_context) == {
        "size": "1",
        "csi.storage.k8s.io/pod.name": "web",
        "csi.storage.k8s.io/pod.namespace": "shop",
        "csi.storage.k8s.io/pod.uid": "u-1",
        "csi.storage.k8s.io/serviceAccount.name": "clerk",
        "csi.storage.k8s.io/ephemeral": "true",
    }
    assert rig.data("pods/u-1/volumes/kubernetes.io~csi/v")["volumeLifecycleMode"] == "Ephemeral"
    rig.make()
    await rig.volumes.recall()
    assert rig.attached.in_use is None
    await rig.volumes.tear_down("u-1")
    assert kinds(rig) == ["NodePublishVolume", "NodeUnpublishVolume"]
    assert rig.files() == set()


async def test_an_inline_volume_needs_a_csidriver_that_allows_it(rig: Rig) -> None:
    rig.has()
    with pytest.raises(Permanent, match=r'volume mode "Ephemeral" not supported .* \(only supports \["Persistent"\]\)'):
        await rig.run(inline())
    del rig.objects.held[CSI_DRIVER]
    with pytest.raises(Permanent, match=r"\(no CSIDriver object\)"):
        await rig.run(inline())


async def test_secrets_come_from_where_the_volume_says(rig: Rig) -> None:
    reference = {"namespace": "vault", "name": "keys"}
    rig.has(nodeStageSecretRef=reference, nodePublishSecretRef=reference)
    with pytest.raises(Permanent, match=r"fetching NodeStageSecretRef vault/keys failed: .*not found"):
        await rig.run(pod())
    rig.objects.held[SECRET] = {"data": {"key": "czNjcmV0"}}
    await rig.run(pod())
    assert [dict(call.secrets) for call in rig.driver.calls] == [{"key": "s3cret"}, {"key": "s3cret"}]


@pytest.mark.parametrize("in_secrets", [False, True])
async def test_tokens_of_the_pod_go_where_the_csidriver_wants_them(rig: Rig, in_secrets: bool) -> None:
    requests = [{"audience": "vault", "expirationSeconds": 600}, {"audience": ""}]
    rig.has(driver={"tokenRequests": requests, "serviceAccountTokenInSecrets": in_secrets})
    await rig.run(pod())
    publish = rig.driver.calls[-1]
    holds, lacks = publish.volume_context, publish.secrets
    if in_secrets:
        holds, lacks = lacks, holds
    assert json.loads(holds["csi.storage.k8s.io/serviceAccount.tokens"]) == {
        "vault": {"token": "t0ken for vault 600", "expirationTimestamp": "2023-11-14T22:13:20Z"},
        "": {"token": "t0ken for api 3600", "expirationTimestamp": "2023-11-14T22:13:20Z"},
    }
    assert dict(lacks) == {}


async def test_a_driver_that_asks_for_it_is_told_of_a_mounted_volume_again(rig: Rig) -> None:
    rig.has(driver={"requiresRepublish": True})
    await rig.run(pod())
    await rig.refresh(pod())
    assert kinds(rig) == ["NodeStageVolume", "NodePublishVolume", "NodePublishVolume"]
    rig.has()
    await rig.refresh(pod())
    assert len(rig.driver.calls) == 3


# ------------------------------------------------------------ fsGroup


@pytest.mark.parametrize(
    ("policy", "fs_type", "modes", "read_only", "given"),
    [
        ("ReadWriteOnceWithFSType", "ext4", ["ReadWriteOnce"], False, True),
        ("ReadWriteOnceWithFSType", "ext4", ["ReadWriteOncePod"], False, True),
        ("ReadWriteOnceWithFSType", "", ["ReadWriteOnce"], False, False),
        ("ReadWriteOnceWithFSType", "ext4", ["ReadWriteMany"], False, False),
        ("File", "", ["ReadWriteMany"], False, True),
        ("File", "", ["ReadWriteMany"], True, False),
        ("None", "ext4", ["ReadWriteOnce"], False, False),
    ],
)
async def test_files_are_given_to_the_pod_s_group_as_the_csidriver_s_policy_says(
    rig: Rig,
    monkeypatch: pytest.MonkeyPatch,
    policy: str,
    fs_type: str,
    modes: list[str],
    read_only: bool,
    given: bool,
) -> None:
    owned: list[tuple[Path, int]] = []
    monkeypatch.setattr("agent.pods.volumes.csi.own", lambda path, ownership: owned.append((path, ownership.group)))
    rig.has({"accessModes": modes}, {"fsGroupPolicy": policy}, fsType=fs_type)
    paths = await rig.run(pod(securityContext={"fsGroup": 2000}, claim={"readOnly": read_only}))
    assert owned == ([(paths["v"], 2000)] if given else [])
    assert {call.volume_capability.mount.volume_mount_group for call in rig.driver.calls} == {""}


async def test_a_driver_that_can_gives_the_volume_to_the_group_itself(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned: list[Path] = []
    monkeypatch.setattr("agent.pods.volumes.csi.own", lambda path, _: owned.append(path))
    rig.driver.can = (Rpc.STAGE_UNSTAGE_VOLUME, Rpc.VOLUME_MOUNT_GROUP)
    rig.has(driver={"fsGroupPolicy": "File"})
    await rig.run(pod(securityContext={"fsGroup": 2000}))
    assert {call.volume_capability.mount.volume_mount_group for call in rig.driver.calls} == {"2000"}
    assert owned == []
