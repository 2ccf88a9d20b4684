"""Volumes by claims and images, and what is left of them when their pod is gone."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from hack.images import BUSYBOX
from hack.runtime import Generation
from tests.integration.agent.edge import SLEEP, Edge, container, pod, status_of
from tests.integration.support.waiting import wait_until

SCRIPT = f"echo whole > /data/file; echo part > /part/file; touch /locked/x || echo locked; {SLEEP}"


def persistent(edge: Edge, **source: Any) -> dict[str, Any]:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [edge.node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pv-{edge.namespace}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "by-hand",
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            "claimRef": {"namespace": edge.namespace, "name": "data"},
            **source,
        },
    }


def claim() -> dict[str, Any]:
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {**wanted, "storageClassName": "by-hand"},
    }


@pytest.mark.parametrize("kind", ["local", "hostPath"])
def test_a_claims_data_stays_and_its_mounts_go_with_the_pod(guest: Edge, tmp_path: Path, kind: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir(mode=0o755)
    mounts = [
        {"name": "data", "mountPath": "/data"},
        {"name": "data", "mountPath": "/part", "subPath": "deep/er"},
        {"name": "data", "mountPath": "/locked", "readOnly": True},
    ]
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    guest.run(
        pod("web", container(SCRIPT, volumeMounts=mounts), volumes=[volume], securityContext={"fsGroup": 4242}),
    )
    wait_until(lambda: any("not found" in text for reason, text in guest.events("web") if reason == "FailedMount"))
    try:
        guest.apply(persistent(guest, **{kind: {"path": str(disk)}}), claim())
        guest.wait_ready("web")
        wait_until(lambda: "locked" in guest.log("web"))
        uid = guest.pod("web")["metadata"]["uid"]
        folder = guest.agent.root_dir / "pods" / uid
        assert (disk / "file").read_text() == "whole\n"
        assert (disk / "deep/er/file").read_text() == "part\n"
        assert not (disk / "x").exists()
        if kind == "local":
            assert str(folder) in Path("/proc/self/mountinfo").read_text()
            assert (disk.stat().st_gid, stat.S_IMODE(disk.stat().st_mode)) == (4242, 0o2775)
        guest.delete("pod/web")
        guest.wait_gone("web")
        assert not folder.exists()
        assert str(folder) not in Path("/proc/self/mountinfo").read_text()
        assert (disk / "file").read_text() == "whole\n"
    finally:
        guest.delete("pvc/data")
        guest.delete(f"pv/pv-{guest.namespace}")


def test_an_image_is_a_volume_where_the_runtime_can_and_a_clear_refusal_elsewhere(every_guest: Edge) -> None:
    image = {"reference": BUSYBOX, "pullPolicy": "IfNotPresent"}
    mounts = [{"name": "image", "mountPath": "/image"}, {"name": "image", "mountPath": "/etc2", "subPath": "etc"}]
    script = f"cat /image/etc/passwd /etc2/passwd; touch /image/x || echo locked; {SLEEP}"
    every_guest.run(pod("web", container(script, volumeMounts=mounts), volumes=[{"name": "image", "image": image}]))
    if every_guest.runtime.generation is Generation.DISTRIBUTION:

        def refused() -> bool:
            state = status_of(every_guest.pod("web")).get("state", {}).get("waiting", {})
            return "mounts no images, containerd 2.1 and later do" in state.get("message", "")

        wait_until(refused)
    else:
        every_guest.wait_ready("web")
        wait_until(lambda: "locked" in every_guest.log("web"))
        assert every_guest.log("web").count("root:x:0:0") == 2
    every_guest.delete("pod/web")
    every_guest.wait_gone("web")
