import errno
import os
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Permanent, Retryable
from agent.model.meta import ObjectMeta
from agent.model.objects import ConfigMap
from agent.model.pod import Pod, pod_from_dict
from agent.pods.downward import NodeContext
from agent.pods.ports import ObjectKey, Token
from agent.pods.references import Referenced
from agent.pods.volumes.pod_volumes import PodVolumes
from tests.unit.pods.volumes.fake_mounts import FakeMounts

NODE = NodeContext("n")
API_ACCESS = {
    "name": "api",
    "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "ca"}}]},
}


def pod(*volumes: dict[str, Any]) -> Pod:
    return pod_from_dict({"metadata": {"namespace": "ns", "uid": "u"}, "spec": {"volumes": volumes}})


def referenced(token: str = "jwt", ca: str | None = "PEM") -> Referenced:
    config = ConfigMap(metadata=ObjectMeta(name="ca"), data={"ca.crt": ca or ""})
    return Referenced(
        objects={ObjectKey("configmaps", "ns", "ca"): config} if ca is not None else {},
        tokens={("api", "token"): Token(token, 1.0)},
    )


@pytest.fixture
def mounts() -> FakeMounts:
    return FakeMounts()


@pytest.fixture
def volumes(tmp_path: Path, mounts: FakeMounts) -> PodVolumes:
    return PodVolumes(tmp_path, mounts)


async def test_a_standard_pod_gets_its_token_on_a_tmpfs(
    tmp_path: Path, volumes: PodVolumes, mounts: FakeMounts
) -> None:
    paths = await volumes.set_up(pod(API_ACCESS), referenced(), NODE)
    assert paths == {"api": tmp_path / "pods/u/volumes/kubernetes.io~projected/api"}
    assert set(mounts.tmpfs_at) == set(paths.values())
    assert (paths["api"] / "token").read_text() == "jwt"
    assert (paths["api"] / "ca.crt").read_text() == "PEM"
    assert volumes.pods_on_disk() == {"u"}
    assert (volumes.is_on_disk("u"), volumes.is_on_disk("v")) == (True, False)


async def test_set_up_again_changes_nothing(volumes: PodVolumes) -> None:
    wanted = pod(API_ACCESS, {"name": "e", "emptyDir": {}})
    paths = await volumes.set_up(wanted, referenced(), NODE)
    (paths["e"] / "data").touch()
    version = os.readlink(paths["api"] / "..data")
    assert await volumes.set_up(wanted, referenced(), NODE) == paths
    assert os.readlink(paths["api"] / "..data") == version
    assert (paths["e"] / "data").exists()


async def test_a_refresh_tells_which_volumes_changed(volumes: PodVolumes) -> None:
    paths = await volumes.set_up(pod(API_ACCESS), referenced(), NODE)
    assert await volumes.refresh(pod(API_ACCESS), referenced(), NODE) == ()
    assert await volumes.refresh(pod(API_ACCESS), referenced("new"), NODE) == ("api",)
    assert (paths["api"] / "token").read_text() == "new"


async def test_a_refresh_that_cannot_be_had_keeps_the_old_contents(volumes: PodVolumes) -> None:
    paths = await volumes.set_up(pod(API_ACCESS), referenced(), NODE)
    with pytest.raises(Permanent, match='configmap "ca" not found'):
        await volumes.refresh(pod(API_ACCESS), referenced(ca=None), NODE)
    assert (paths["api"] / "ca.crt").read_text() == "PEM"


async def test_a_missing_object_is_a_failed_mount(volumes: PodVolumes) -> None:
    with pytest.raises(Permanent) as caught:
        await volumes.set_up(pod(API_ACCESS), referenced(ca=None), NODE)
    assert caught.value.reason == "FailedMount"
    assert str(caught.value) == 'MountVolume.SetUp failed for volume "api" : configmap "ca" not found'


async def test_a_wrong_host_path_is_a_failed_mount(tmp_path: Path, volumes: PodVolumes) -> None:
    host = {"name": "h", "hostPath": {"path": str(tmp_path / "absent"), "type": "Directory"}}
    with pytest.raises(Permanent, match=r'volume "h" : hostPath type check failed: .*absent is not a directory'):
        await volumes.set_up(pod(host), referenced(), NODE)


async def test_a_full_disk_is_worth_another_try(
    volumes: PodVolumes, mounts: FakeMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(mounts, "tmpfs", full)
    with pytest.raises(Retryable, match=r'volume "api" : .*No space left'):
        await volumes.set_up(pod(API_ACCESS), referenced(), NODE)


async def test_tear_down_unmounts_everything_and_leaves_nothing(
    tmp_path: Path, volumes: PodVolumes, mounts: FakeMounts
) -> None:
    wanted = pod(API_ACCESS, {"name": "e", "emptyDir": {}})
    paths = await volumes.set_up(wanted, referenced(), NODE)
    (paths["e"] / "data").touch()
    await volumes.prepare_subpath(wanted, "main", 0, "e", paths["e"], "data")
    await volumes.tear_down("u")
    assert (mounts.tmpfs_at, mounts.bound) == ({}, {})
    assert volumes.pods_on_disk() == set()
    await volumes.tear_down("u")


async def test_nothing_is_removed_while_something_is_still_mounted(volumes: PodVolumes, mounts: FakeMounts) -> None:
    paths = await volumes.set_up(pod(API_ACCESS, {"name": "e", "emptyDir": {}}), referenced(), NODE)
    (paths["e"] / "data").touch()
    mounts.busy.add(paths["api"])
    with pytest.raises(Retryable, match="api: Device or resource busy"):
        await volumes.tear_down("u")
    assert (paths["e"] / "data").exists()
    mounts.busy.clear()
    await volumes.tear_down("u")
    assert volumes.pods_on_disk() == set()


async def test_a_subpath_has_its_own_place(tmp_path: Path, volumes: PodVolumes, mounts: FakeMounts) -> None:
    wanted = pod({"name": "e", "emptyDir": {}})
    paths = await volumes.set_up(wanted, referenced(), NODE)
    target = await volumes.prepare_subpath(wanted, "main", 3, "e", paths["e"], "sub")
    assert target == tmp_path / "pods/u/volume-subpaths/e/main/3"
    assert mounts.bound == {target: paths["e"] / "sub"}


async def test_a_subpath_that_escapes_is_a_config_error(volumes: PodVolumes) -> None:
    wanted = pod({"name": "e", "emptyDir": {}})
    paths = await volumes.set_up(wanted, referenced(), NODE)
    (paths["e"] / "etc").symlink_to("/etc")
    with pytest.raises(Permanent, match='volumeMount "e" of container "main"') as caught:
        await volumes.prepare_subpath(wanted, "main", 0, "e", paths["e"], "etc")
    assert caught.value.reason == "CreateContainerConfigError"


@pytest.mark.parametrize("uid", ["", "..", "a/b"])
async def test_a_uid_that_is_a_path_is_refused(volumes: PodVolumes, uid: str) -> None:
    with pytest.raises(ValueError, match="not a plain file name"):
        await volumes.tear_down(uid)


async def test_a_machine_without_pods_has_none_on_disk(tmp_path: Path) -> None:
    assert PodVolumes(tmp_path / "fresh", FakeMounts()).pods_on_disk() == set()


async def test_a_mount_under_another_one_goes_in_the_second_round(
    tmp_path: Path, volumes: PodVolumes, mounts: FakeMounts
) -> None:
    paths = await volumes.set_up(pod(API_ACCESS), referenced(), NODE)
    hidden = paths["api"] / "hidden"
    mounts.bound[hidden] = tmp_path
    unmount = mounts.unmount

    def covered(path: Path, lazy: bool = False) -> None:
        if path == hidden and paths["api"] in mounts.tmpfs_at:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        unmount(path, lazy)

    mounts.unmount = covered  # type: ignore[method-assign]
    await volumes.tear_down("u")
    assert (mounts.tmpfs_at, mounts.bound) == ({}, {})
    assert volumes.pods_on_disk() == set()


async def test_a_mount_that_comes_back_is_told_and_its_pod_stays_on_disk(
    volumes: PodVolumes, mounts: FakeMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await volumes.set_up(pod(API_ACCESS), referenced(), NODE)
    monkeypatch.setattr(mounts, "unmount", lambda path, lazy=False: None)
    with pytest.raises(Retryable, match="still mounted"):
        await volumes.tear_down("u")
    assert volumes.pods_on_disk() == {"u"}


async def test_a_folder_that_cannot_be_removed_is_told(volumes: PodVolumes, monkeypatch: pytest.MonkeyPatch) -> None:
    await volumes.set_up(pod({"name": "e", "emptyDir": {}}), referenced(), NODE)

    def immutable(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", immutable)
        with pytest.raises(Retryable, match=r"can't remove .*Operation not permitted"):
            await volumes.tear_down("u")
    await volumes.tear_down("u")
    assert volumes.pods_on_disk() == set()


async def test_a_subpath_that_the_disk_refuses_is_worth_another_try(volumes: PodVolumes) -> None:
    wanted = pod({"name": "e", "emptyDir": {}})
    paths = await volumes.set_up(wanted, referenced(), NODE)
    (paths["e"] / "file").touch()
    with pytest.raises(Retryable, match='failed to prepare subPath for volumeMount "e" of container "main"'):
        await volumes.prepare_subpath(wanted, "main", 0, "e", paths["e"], "file/below")


async def test_memory_volumes_are_mounted_and_good_host_paths_handed_on(
    tmp_path: Path, volumes: PodVolumes, mounts: FakeMounts
) -> None:
    memory = {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Ki"}}
    host = {"name": "h", "hostPath": {"path": str(tmp_path), "type": "Directory"}}
    paths = await volumes.set_up(pod(memory, host), referenced(), NODE)
    assert paths["h"] == tmp_path
    assert mounts.tmpfs_at == {paths["m"]: (1024, 0o1777, None)}


async def test_huge_pages_are_mounted_once(volumes: PodVolumes, mounts: FakeMounts) -> None:
    container = {"name": "c", "resources": {"limits": {"hugepages-2Mi": "4Mi"}}}
    spec = {"containers": [container], "volumes": [{"name": "h", "emptyDir": {"medium": "HugePages"}}]}
    wanted = pod_from_dict({"metadata": {"namespace": "ns", "uid": "u"}, "spec": spec})
    for _ in range(2):
        paths = await volumes.set_up(wanted, referenced(), NODE)
    assert mounts.tmpfs_at == {paths["h"]: (2 << 20, 0o1777, None)}


async def test_what_a_driver_brought_is_left_to_a_driver_where_there_is_none(
    tmp_path: Path, volumes: PodVolumes
) -> None:
    folder = tmp_path / "pods/u/volumes/kubernetes.io~csi/pv-1"
    (folder / "mount").mkdir(parents=True)
    (folder / "vol_data.json").write_text('{"driverName": "csi.example.com", "volumeHandle": "v-1"}')
    with pytest.raises(Retryable, match=r"volume v-1 of CSI driver csi\.example\.com"):
        await volumes.tear_down("u")
    assert (folder / "mount").is_dir()
    (folder / "vol_data.json").unlink()
    await volumes.tear_down("u")
    assert volumes.pods_on_disk() == set()
