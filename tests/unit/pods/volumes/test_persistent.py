from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.model.persistent import PersistentVolume, PersistentVolumeClaim
from agent.model.pod import Pod, pod_from_dict
from agent.pods.claims import Bound
from agent.pods.downward import NodeContext
from agent.pods.references import Referenced
from agent.pods.volumes.mount_plan import plan_mounts
from agent.pods.volumes.persistent import persistent_step
from agent.pods.volumes.steps import CheckHostPath, MountRemote, Ownership, ShowLocal

ROOT = Path("/var/lib/edgelet")
VOLUMES = ROOT / "pods/u/volumes"


def pod(**security: Any) -> Pod:
    return pod_from_dict({"metadata": {"uid": "u"}, "spec": {"securityContext": security}})


def bound(read_only: bool = False, annotations: dict[str, str] | None = None, **spec: Any) -> Bound:
    meta = {"name": "pv-1", "annotations": annotations}
    volume = msgspec.convert({"metadata": meta, "spec": spec}, PersistentVolume)
    claim = msgspec.convert({"metadata": {"name": "data"}}, PersistentVolumeClaim)
    return Bound(claim, volume, read_only)


def test_a_local_volume_has_the_persistent_volumes_name_in_the_pods_folder() -> None:
    step = persistent_step(pod(), "v", bound(local={"path": "/srv/d"}, mountOptions=["noexec"]), ROOT)
    assert step == ShowLocal(
        "v", VOLUMES / "kubernetes.io~local-volume/pv-1", Path("/srv/d"), "ext4", ("noexec",), False, None
    )


@pytest.mark.parametrize(
    ("policy", "expected"),
    [(None, Ownership(7, False)), ("Always", Ownership(7, False)), ("OnRootMismatch", Ownership(7, True))],
)
def test_a_writable_local_volume_is_given_to_the_pods_group(policy: str | None, expected: Ownership) -> None:
    step = persistent_step(pod(fsGroup=7, fsGroupChangePolicy=policy), "v", bound(local={"path": "/d"}), ROOT)
    assert isinstance(step, ShowLocal)
    assert step.ownership == expected


def test_a_read_only_volume_stays_as_it_is() -> None:
    step = persistent_step(pod(fsGroup=7), "v", bound(read_only=True, local={"path": "/d"}), ROOT)
    assert isinstance(step, ShowLocal)
    assert (step.ownership, step.read_only) == (None, True)


def test_a_host_path_volume_is_checked_where_it_is() -> None:
    step = persistent_step(pod(fsGroup=7), "v", bound(hostPath={"path": "/d", "type": "Directory"}), ROOT)
    assert step == CheckHostPath("v", Path("/d"), "Directory")


@pytest.mark.parametrize(
    ("server", "options", "read_only", "source", "asked"),
    [
        ("srv", [], False, "srv:/x", ()),
        ("srv", ["vers=4.1", "hard"], True, "srv:/x", ("ro", "vers=4.1", "hard")),
        ("fd00::1", ["ro"], True, "[fd00::1]:/x", ("ro",)),
    ],
)
def test_nfs_by_a_claim(server: str, options: list[str], read_only: bool, source: str, asked: tuple[str, ...]) -> None:
    wanted = bound(read_only, nfs={"server": server, "path": "/x"}, mountOptions=options)
    assert persistent_step(pod(), "v", wanted, ROOT) == MountRemote(
        "v", VOLUMES / "kubernetes.io~nfs/pv-1", source, "nfs", asked
    )


def test_the_older_annotation_of_mount_options_is_read_too() -> None:
    older = {"volume.beta.kubernetes.io/mount-options": "hard,nolock"}
    step = persistent_step(pod(), "v", bound(annotations=older, nfs={"server": "s", "path": "/"}), ROOT)
    assert isinstance(step, MountRemote)
    assert step.options == ("hard", "nolock")


def test_nfs_in_the_pod_itself() -> None:
    nfs = {"name": "v", "nfs": {"server": "s", "path": "/x", "readOnly": True}}
    wanted = pod_from_dict({"metadata": {"uid": "u"}, "spec": {"volumes": [nfs]}})
    plan = plan_mounts(wanted, Referenced(), NodeContext("n"), ROOT)
    assert plan.steps == (MountRemote("v", VOLUMES / "kubernetes.io~nfs/v", "s:/x", "nfs", ("ro",)),)


def test_a_volume_of_another_kind_is_told() -> None:
    with pytest.raises(ValueError, match="PersistentVolume pv-1 is of a kind that this node does not support"):
        persistent_step(pod(), "v", bound(iscsi={}), ROOT)


def test_a_raw_device_is_never_taken_for_a_file_system() -> None:
    with pytest.raises(ValueError, match="pv-1: volumeMode Block is not supported by this node"):
        persistent_step(pod(), "v", bound(local={"path": "/dev/sdz"}, volumeMode="Block"), ROOT)
