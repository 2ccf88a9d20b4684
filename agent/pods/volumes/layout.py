"""Where a pod's files lie below the agent's root folder: the kubelet's own layout, path by path.

Pure. Every part that comes from a pod is one plain path component, or ValueError: nothing here leads outside.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256
from pathlib import Path


class VolumePlugin(StrEnum):
    """The folder names of the volume kinds that live in a pod's own folder."""

    EMPTY_DIR = "kubernetes.io~empty-dir"
    CONFIG_MAP = "kubernetes.io~configmap"
    SECRET = "kubernetes.io~secret"  # noqa: S105 - a folder
    DOWNWARD_API = "kubernetes.io~downward-api"
    PROJECTED = "kubernetes.io~projected"
    LOCAL = "kubernetes.io~local-volume"
    NFS = "kubernetes.io~nfs"
    CSI = "kubernetes.io~csi"


def pods_dir(root: Path) -> Path:
    return root / "pods"


def pod_dir(root: Path, uid: str) -> Path:
    return pods_dir(root) / _component("uid", uid)


def volume_dir(root: Path, uid: str, plugin: VolumePlugin, name: str) -> Path:
    return pod_dir(root, uid) / "volumes" / plugin / _component("volume name", name)


def csi_staging_root(root: Path) -> Path:
    return root / "plugins" / "kubernetes.io" / "csi"


def csi_staging_dir(root: Path, driver: str, handle: str) -> Path:
    """Where a driver makes a volume ready for all of a machine's pods."""
    return csi_staging_root(root) / _component("driver", driver) / sha256(handle.encode()).hexdigest() / "globalmount"


def subpath_target(root: Path, uid: str, volume: str, container: str, index: int) -> Path:
    """Where the part of a volume that `volumeMounts[index]` of a container names is bound."""
    return (
        pod_dir(root, uid)
        / "volume-subpaths"
        / _component("volume name", volume)
        / _component("container name", container)
        / str(index)
    )


def container_dir(root: Path, uid: str, container: str) -> Path:
    return pod_dir(root, uid) / "containers" / _component("container name", container)


def termination_log(root: Path, uid: str, container: str, instance: str) -> Path:
    """The file that a container writes its last words to; `instance` is eight hex digits, new for every start."""
    return container_dir(root, uid, container) / _component("instance", instance)


def pre_stop_mark(root: Path, uid: str, container: str, container_id: str) -> Path:
    """Is there once that container's preStop hook has ended."""
    return container_dir(root, uid, container) / f"pre-stop-{_component('container id', container_id)}"


def etc_hosts(root: Path, uid: str) -> Path:
    return pod_dir(root, uid) / "etc-hosts"


def _component(what: str, text: str) -> str:
    if text in ("", ".", "..") or "/" in text or "\0" in text:
        raise ValueError(f"{what} {text!r} is not a plain file name")
    return text
