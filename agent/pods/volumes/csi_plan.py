"""Decide how a CSI volume gets to a pod: everything that its driver will hear but what only the driver knows.

In: the claim's volume or the pod's inline one, the CSIDriver object (a driver may have none), the Secrets, the pod.
Out: one step, or ValueError with the kubelet's words. Pure. `agent.pods.volumes.csi` takes the step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.model.csi import CSI_PLUGIN
from agent.model.persistent import BLOCK, CSIPersistentVolumeSource, SecretReference
from agent.model.pod import Pod
from agent.model.storage import EPHEMERAL, PERSISTENT, CSIDriver
from agent.model.volume import CSIVolumeSource
from agent.pods.claims import Bound
from agent.pods.references import Referenced
from agent.pods.volumes.layout import VolumePlugin, csi_staging_dir, volume_dir
from agent.pods.volumes.persistent import ownership
from agent.pods.volumes.steps import Ownership, PublishCsi

MOUNT: Final = "mount"
_ONE_WRITER: Final = frozenset({"ReadWriteOnce", "ReadWriteOncePod"})


def persistent_csi_step(
    pod: Pod, name: str, bound: Bound, source: CSIPersistentVolumeSource, referenced: Referenced, root: Path
) -> PublishCsi:
    """`name` is the volume's name in the pod. Raises ValueError."""
    volume, spec = bound.volume, bound.volume.spec
    if spec.volumeMode == BLOCK:
        raise ValueError("CSI volumes of volumeMode Block are not supported by this node")
    driver = referenced.csi_driver(source.driver)
    if driver is not None:
        _check_mode(driver, PERSISTENT)
    path = volume_dir(root, pod.uid, VolumePlugin.CSI, volume.metadata.name) / MOUNT
    # The source's own readOnly is for the attacher.
    read_only = bound.read_only
    modes = spec.accessModes
    return PublishCsi(
        name=name,
        path=path,
        spec_name=volume.metadata.name,
        driver=source.driver,
        handle=source.volumeHandle,
        persistent=True,
        staging=csi_staging_dir(root, source.driver, source.volumeHandle),
        # A driver without a CSIDriver object is attached to like one that says nothing of it.
        attach=driver is None or driver.spec.attachRequired,
        access_mode=modes[0] if modes else "ReadWriteOnce",
        fs_type=source.fsType,
        mount_flags=volume.mount_options,
        read_only=read_only,
        attributes=source.volumeAttributes or {},
        pod_info=_pod_info(pod, driver, PERSISTENT),
        tokens=driver.spec.tokenRequests if driver is not None else (),
        tokens_in_secrets=driver is not None and driver.spec.serviceAccountTokenInSecrets,
        stage_secrets=_secrets("NodeStageSecretRef", source.nodeStageSecretRef, referenced),
        publish_secrets=_secrets("NodePublishSecretRef", source.nodePublishSecretRef, referenced),
        group=_group(pod),
        ownership=_given(pod, driver, source.fsType, read_only, bool(_ONE_WRITER & set(modes))),
        republish=driver is not None and driver.spec.requiresRepublish,
    )


def inline_csi_step(pod: Pod, name: str, source: CSIVolumeSource, referenced: Referenced, root: Path) -> PublishCsi:
    """A volume that lives and ends with its pod. Raises ValueError."""
    driver = referenced.csi_driver(source.driver)
    if driver is None:
        raise ValueError(
            f'{CSI_PLUGIN}: mounter.SetupAt failed to check volume lifecycle mode: volume mode "{EPHEMERAL}" not '
            f"supported by driver {source.driver} (no CSIDriver object)"
        )
    _check_mode(driver, EPHEMERAL)
    secret = source.nodePublishSecretRef
    reference = None if secret is None else SecretReference(secret.name, pod.metadata.namespace)
    fs_type = source.fsType or ""
    return PublishCsi(
        name=name,
        path=volume_dir(root, pod.uid, VolumePlugin.CSI, name) / MOUNT,
        spec_name=name,
        driver=source.driver,
        handle=f"csi-{hashlib.sha256(f'{pod.uid}{name}'.encode()).hexdigest()}",
        persistent=False,
        staging=None,
        attach=False,
        access_mode="ReadWriteOnce",
        fs_type=fs_type,
        mount_flags=(),
        read_only=source.readOnly,
        attributes=source.volumeAttributes or {},
        pod_info=_pod_info(pod, driver, EPHEMERAL),
        tokens=driver.spec.tokenRequests,
        tokens_in_secrets=driver.spec.serviceAccountTokenInSecrets,
        stage_secrets={},
        publish_secrets=_secrets("NodePublishSecretRef", reference, referenced),
        group=_group(pod),
        ownership=_given(pod, driver, fs_type, source.readOnly, one_writer=True),
        republish=driver.spec.requiresRepublish,
    )


def attachment_name(handle: str, driver: str, node: str) -> str:
    """The name of the VolumeAttachment, as its maker and a kubelet compute it."""
    return f"csi-{hashlib.sha256(f'{handle}{driver}{node}'.encode()).hexdigest()}"


def unique_name(driver: str, handle: str) -> str:
    """The volume in a Node's volumesInUse and volumesAttached."""
    return f"{CSI_PLUGIN}/{driver}^{handle}"


def _check_mode(driver: CSIDriver, mode: str) -> None:
    modes = driver.spec.volumeLifecycleModes
    if mode not in modes:
        said = " ".join(f'"{one}"' for one in modes)
        raise ValueError(
            f'{CSI_PLUGIN}: mounter.SetupAt failed to check volume lifecycle mode: volume mode "{mode}" not supported '
            f"by driver {driver.metadata.name} (only supports [{said}])"
        )


def _pod_info(pod: Pod, driver: CSIDriver | None, mode: str) -> Mapping[str, str]:
    if driver is None or not driver.spec.podInfoOnMount:
        return {}
    return {
        "csi.storage.k8s.io/pod.name": pod.metadata.name,
        "csi.storage.k8s.io/pod.namespace": pod.metadata.namespace,
        "csi.storage.k8s.io/pod.uid": pod.uid,
        "csi.storage.k8s.io/serviceAccount.name": pod.spec.serviceAccountName,
        "csi.storage.k8s.io/ephemeral": "true" if mode == EPHEMERAL else "false",
    }


def _secrets(what: str, reference: SecretReference | None, referenced: Referenced) -> Mapping[str, str]:
    if reference is None:
        return {}
    where = f"fetching {what} {reference.namespace}/{reference.name} failed: {CSI_PLUGIN}"
    found = referenced.secret(reference.namespace, reference.name)
    if found is None:
        raise ValueError(
            f"{where}: failed to find the secret {reference.name} in the namespace {reference.namespace} with error: "
            f'secrets "{reference.name}" not found'
        )
    try:
        return {key: value.decode() for key, value in found.contents().items()}
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: a value is not text, and CSI carries no other: {error}") from error


def _group(pod: Pod) -> int | None:
    return pod.spec.securityContext.fsGroup if pod.spec.securityContext is not None else None


def _given(pod: Pod, driver: CSIDriver | None, fs_type: str, read_only: bool, one_writer: bool) -> Ownership | None:
    """What is to be done for fsGroup where the driver does not do it, by the CSIDriver's policy."""
    if read_only:
        return None
    match driver.spec.fsGroupPolicy if driver is not None else "ReadWriteOnceWithFSType":
        case "None":
            return None
        case "File":
            return ownership(pod.spec.securityContext)
        case "ReadWriteOnceWithFSType":
            return ownership(pod.spec.securityContext) if fs_type and one_writer else None
        case other:
            raise ValueError(f"fsGroupPolicy {other!r} of CSIDriver is not supported by this node")
