import re
from typing import Any

import msgspec
import pytest

from agent.errors import NotFound
from agent.model.node import NodeFacts
from agent.model.pod import Pod, pod_from_dict
from agent.pods.claims import bound
from agent.pods.ports import ObjectKey
from agent.pods.references import Referenced, fetch

CLAIM = ObjectKey("persistentvolumeclaims", "ns", "data")
OWN_CLAIM = ObjectKey("persistentvolumeclaims", "ns", "web-v")
VOLUME = ObjectKey("persistentvolumes", "", "pv-1")
BY_CLAIM = {"persistentVolumeClaim": {"claimName": "data"}}
OWNED = [{"controller": True, "uid": "u"}]


def claim(phase: str = "Bound", volume: str = "pv-1", **meta: Any) -> dict[str, Any]:
    named = {"namespace": "ns", "name": "data", "uid": "claim-uid", **meta}
    return {"metadata": named, "spec": {"volumeName": volume}, "status": {"phase": phase}}


def persistent(**spec: Any) -> dict[str, Any]:
    known = {"local": {"path": "/srv/disk"}, "claimRef": {"uid": "claim-uid"}}
    return {"metadata": {"name": "pv-1"}, "spec": {**known, **spec}}


class Objects:
    def __init__(self, held: dict[ObjectKey, dict[str, Any]]) -> None:
        self.held = held
        self.asked: list[ObjectKey] = []

    async def get(self, key: ObjectKey) -> bytes:
        self.asked.append(key)
        if key not in self.held:
            raise NotFound("")
        return msgspec.json.encode(self.held[key])

    def retain(self, pod_uid: str, keys: object) -> None: ...
    def release(self, pod_uid: str) -> None: ...
    async def services(self, namespace: str) -> tuple[()]:
        return ()


def pod(source: dict[str, Any], **container: Any) -> Pod:
    containers = [{"name": "c", **(container or {"volumeMounts": [{"name": "v", "mountPath": "/d"}]})}]
    spec = {"volumes": [{"name": "v", **source}], "containers": containers}
    return pod_from_dict({"metadata": {"name": "web", "namespace": "ns", "uid": "u"}, "spec": spec})


async def referenced(of: Pod, held: dict[ObjectKey, dict[str, Any]]) -> Referenced:
    return await fetch(of, Objects(held), None)


async def test_a_bound_claim_leads_to_its_volume() -> None:
    mine = pod(BY_CLAIM)
    found = bound(mine, mine.spec.volumes[0], await referenced(mine, {CLAIM: claim(), VOLUME: persistent()}))
    assert found.volume.spec.local is not None
    assert (found.volume.spec.local.path, found.read_only) == ("/srv/disk", False)


async def test_an_ephemeral_volumes_claim_is_named_after_pod_and_volume() -> None:
    mine = pod({"ephemeral": {"volumeClaimTemplate": {"spec": {}}}})
    held = {OWN_CLAIM: claim(name="web-v", ownerReferences=OWNED), VOLUME: persistent()}
    found = bound(mine, mine.spec.volumes[0], await referenced(mine, held))
    assert found.claim.metadata.name == "web-v"


async def test_the_secrets_of_a_driver_are_read_with_the_volume() -> None:
    mine = pod(BY_CLAIM)
    csi = {"driver": "d", "volumeHandle": "h", "nodePublishSecretRef": {"namespace": "other", "name": "s"}}
    objects = Objects({CLAIM: claim(), VOLUME: persistent(local=None, csi=csi)})
    await fetch(mine, objects, None)
    assert objects.asked == [CLAIM, VOLUME, ObjectKey("csidrivers", "", "d"), ObjectKey("secrets", "other", "s")]


READY: dict[ObjectKey, dict[str, Any]] = {CLAIM: claim(), VOLUME: persistent()}
PROCESSING = "error processing PVC ns/data: "


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({}, f'{PROCESSING}failed to fetch PVC from API server: persistentvolumeclaims "data" not found'),
        ({CLAIM: claim("Pending", "")}, f"{PROCESSING}PVC is not bound"),
        ({CLAIM: claim("Bound", "")}, f"{PROCESSING}PVC has empty pvc.Spec.VolumeName"),
        ({CLAIM: claim(deletionTimestamp="2026-01-01T00:00:00Z")}, f"{PROCESSING}PVC is being deleted"),
        ({CLAIM: claim()}, f'{PROCESSING}failed to fetch PV pv-1 from API server: persistentvolumes "pv-1" not found'),
        (
            {CLAIM: claim(), VOLUME: persistent(claimRef=None)},
            f"{PROCESSING}found PV object pv-1 but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to "
            "the claim",
        ),
        (
            {CLAIM: claim(), VOLUME: persistent(claimRef={"uid": "other"})},
            f"{PROCESSING}found PV object pv-1 but its pv.Spec.ClaimRef.UID other does not point to claim.UID "
            "claim-uid",
        ),
        (
            {CLAIM: claim(), VOLUME: persistent(volumeMode="Block")},
            "volume v has volumeMode Block, but is specified in volumeMounts",
        ),
    ],
)
async def test_what_is_not_ready_is_told_in_the_kubelets_words(
    held: dict[ObjectKey, dict[str, Any]], message: str
) -> None:
    mine = pod(BY_CLAIM)
    with pytest.raises(ValueError, match=re.escape(message)):
        bound(mine, mine.spec.volumes[0], await referenced(mine, held))


async def test_a_claim_that_its_finalizer_protects_serves_its_pods_to_the_end() -> None:
    mine = pod(BY_CLAIM)
    leaving = claim(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["kubernetes.io/pvc-protection"])
    bound(mine, mine.spec.volumes[0], await referenced(mine, {**READY, CLAIM: leaving}))


@pytest.mark.parametrize("owners", [[], [{"controller": True, "uid": "other"}], [{"controller": False, "uid": "u"}]])
async def test_somebody_elses_claim_is_no_ephemeral_volume(owners: list[dict[str, Any]]) -> None:
    mine = pod({"ephemeral": {}})
    held = {OWN_CLAIM: claim(name="web-v", ownerReferences=owners), VOLUME: persistent()}
    with pytest.raises(ValueError, match=r"PVC ns/web-v was not created for pod ns/web \(pod is not owner\)"):
        bound(mine, mine.spec.volumes[0], await referenced(mine, held))


async def test_a_file_system_is_no_device() -> None:
    mine = pod(BY_CLAIM, volumeDevices=[{"name": "v", "devicePath": "/dev/x"}])
    with pytest.raises(ValueError, match="volume v has volumeMode Filesystem, but is specified in volumeDevices"):
        bound(mine, mine.spec.volumes[0], await referenced(mine, READY))


@pytest.mark.parametrize(("labels", "fits"), [({"zone": "a"}, True), ({"zone": "b"}, False), ({}, False)])
async def test_a_volume_of_another_node_is_refused(labels: dict[str, str], fits: bool) -> None:
    mine = pod(BY_CLAIM)
    term = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
    there = persistent(nodeAffinity={"required": {"nodeSelectorTerms": [term]}})
    known = await referenced(mine, {CLAIM: claim(), VOLUME: there})
    if fits:
        bound(mine, mine.spec.volumes[0], known, NodeFacts("n", labels))
    else:
        with pytest.raises(ValueError, match="NodeAffinity check failed: no matching NodeSelectorTerms"):
            bound(mine, mine.spec.volumes[0], known, NodeFacts("n", labels))
