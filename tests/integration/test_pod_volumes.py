"""Volumes with the kernel's own mounts: needs root, and no runtime."""

import os
import time
from pathlib import Path

import pytest

from agent.errors import Retryable
from agent.model.meta import ObjectMeta
from agent.model.objects import ConfigMap
from agent.model.pod import Pod, pod_from_dict
from agent.pods.downward import NodeContext
from agent.pods.ports import ObjectKey, Token
from agent.pods.references import Referenced
from agent.pods.volumes.mounts import KernelMounts
from agent.pods.volumes.pod_volumes import PodVolumes
from agent.pods.volumes.removal import remove_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

NODE = NodeContext("n", allocatable={"memory": "64Mi"})
REFERENCED = Referenced(
    objects={
        ObjectKey("configmaps", "ns", "kube-root-ca.crt"): ConfigMap(
            metadata=ObjectMeta(name="kube-root-ca.crt"), data={"ca.crt": "PEM"}
        )
    },
    tokens={("api", "token"): Token("jwt", 1.0)},
)
API_ACCESS = {
    "name": "api",
    "projected": {
        "sources": [
            {"serviceAccountToken": {"path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt"}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ]
    },
}


def pod(uid: str = "u") -> Pod:
    volumes = [
        API_ACCESS,
        {"name": "disk", "emptyDir": {}},
        {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]
    security = {"fsGroup": 4242, "runAsUser": 1234}
    spec = {"containers": [{"name": "c"}], "volumes": volumes, "securityContext": security}
    return pod_from_dict({"metadata": {"namespace": "ns", "uid": uid}, "spec": spec})


async def test_a_pods_volumes_come_and_go(tmp_path: Path) -> None:
    volumes = PodVolumes(tmp_path)
    paths = await volumes.set_up(pod(), REFERENCED, NODE)
    try:
        token = paths["api"] / "token"
        assert (token.stat().st_uid, token.stat().st_gid, token.stat().st_mode & 0o777) == (1234, 4242, 0o640)
        assert os.statvfs(paths["mem"]).f_blocks * os.statvfs(paths["mem"]).f_frsize == 1 << 20
        for name in ("disk", "mem"):
            assert paths[name].stat().st_gid == 4242
            assert paths[name].stat().st_mode & 0o2777 == 0o2777
        assert await volumes.set_up(pod(), REFERENCED, NODE) == paths
        (paths["mem"] / "in").mkdir()
        bound = await volumes.prepare_subpath(pod(), "c", 0, "mem", paths["mem"], "in")
        (bound / "seen").touch()
        assert (paths["mem"] / "in/seen").exists()
        assert await volumes.prepare_subpath(pod(), "c", 0, "mem", paths["mem"], "in") == bound
        key = await volumes.prepare_subpath(pod(), "c", 1, "api", paths["api"], "ca.crt")
        assert key.read_text() == "PEM"
        with (paths["mem"] / "held").open("w"), pytest.raises(Retryable, match="busy"):
            await volumes.tear_down("u")
        assert (tmp_path / "pods/u").exists()
    finally:
        await volumes.tear_down("u")
    assert list((tmp_path / "pods").iterdir()) == []
    assert KernelMounts().at_or_below(tmp_path) == ()


async def test_removal_stops_at_a_mount_point_of_the_same_file_system(tmp_path: Path) -> None:
    mounts = KernelMounts()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").touch()
    inside = tmp_path / "pod/deep/er"
    inside.mkdir(parents=True)
    fd = os.open(precious, os.O_PATH)
    mounts.bind(fd, inside)
    os.close(fd)
    try:
        with pytest.raises(OSError, match="busy"):
            remove_tree(tmp_path / "pod")
        assert (precious / "data").exists()
    finally:
        for point in mounts.at_or_below(tmp_path):
            mounts.unmount(point)
    remove_tree(tmp_path / "pod")
    assert (precious / "data").exists()


async def test_a_standard_pod_waits_less_than_five_milliseconds_for_its_volume(tmp_path: Path) -> None:
    volumes = PodVolumes(tmp_path)
    standard = [
        pod_from_dict({"metadata": {"namespace": "ns", "uid": f"u{i}"}, "spec": {"volumes": [API_ACCESS]}})
        for i in range(20)
    ]
    waits = []
    try:
        for one in standard:
            before = time.perf_counter()
            await volumes.set_up(one, REFERENCED, NODE)
            waits.append(time.perf_counter() - before)
    finally:
        for one in standard:
            await volumes.tear_down(one.uid)
    assert sorted(waits)[len(waits) // 2] < 0.005


@pytest.mark.skipif("hugetlbfs" not in Path("/proc/filesystems").read_text(), reason="a kernel without huge pages")
async def test_huge_pages_are_mounted_in_the_size_asked_for(tmp_path: Path) -> None:
    volumes = PodVolumes(tmp_path)
    container = {"name": "c", "resources": {"limits": {"hugepages-2Mi": "4Mi"}}}
    spec = {"containers": [container], "volumes": [{"name": "h", "emptyDir": {"medium": "HugePages"}}]}
    wanted = pod_from_dict({"metadata": {"namespace": "ns", "uid": "u"}, "spec": spec})
    paths = await volumes.set_up(wanted, REFERENCED, NODE)
    try:
        assert os.statvfs(paths["h"]).f_bsize == 2 << 20
        assert paths["h"].stat().st_mode & 0o7777 == 0o1777
    finally:
        await volumes.tear_down("u")
    assert not (tmp_path / "pods/u").exists()
