"""The cgroup of a pod: what it is called, where it lies on disk, and its removal once the pod has ended.

In: a pod's UID and QoS class, the machine's cgroup driver and root. Out: the cgroup parent for the CRI, and the folders
that hold it in every hierarchy. Only folders of that one pod are ever removed, leaf first and only while no process
is in them. Names are the kubelet's, so that tools which read them work unchanged.
"""

from __future__ import annotations

import errno
import os
import subprocess
from enum import StrEnum
from pathlib import Path, PurePosixPath

from agent.errors import Retryable
from agent.pods.qos import QosClass

CGROUP_FS = Path("/sys/fs/cgroup")
_STOP_SLICE_S = 10


class CgroupDriver(StrEnum):
    """Who makes cgroups: the runtime through the file system, or systemd on its behalf."""

    CGROUPFS = "cgroupfs"
    SYSTEMD = "systemd"


class CgroupVersion(StrEnum):
    """V1 is also the hybrid layout, where resources are still limited by the version 1 hierarchies."""

    V1 = "v1"
    V2 = "v2"


def cgroup_version(mount: Path = CGROUP_FS) -> CgroupVersion:
    """Only a unified hierarchy lists its controllers at the top of the mount."""
    return CgroupVersion.V2 if (mount / "cgroup.controllers").exists() else CgroupVersion.V1


def pod_cgroup_parent(uid: str, qos: QosClass, driver: CgroupDriver, root: str = "/") -> str:
    """The `cgroup_parent` of a sandbox: a path for cgroupfs, the last slice's name for systemd."""
    names = _names(uid, qos, root)
    match driver:
        case CgroupDriver.CGROUPFS:
            return "/" + "/".join(names)
        case CgroupDriver.SYSTEMD:
            return _slice(names)


def pod_cgroup_path(uid: str, qos: QosClass, driver: CgroupDriver, root: str = "/") -> PurePosixPath:
    """The pod's cgroup relative to the top of a hierarchy; systemd nests every prefix of a slice's name."""
    return _path(_names(uid, qos, root), driver)


def qos_cgroup_path(qos: QosClass, driver: CgroupDriver, root: str = "/") -> PurePosixPath:
    """The level of a class; Guaranteed pods have none of their own."""
    return _path(_level(qos, root), driver)


def kubepods_path(driver: CgroupDriver, root: str = "/") -> PurePosixPath:
    return _path(_level(QosClass.GUARANTEED, root), driver)


def remove_pod_cgroup(
    uid: str, qos: QosClass, driver: CgroupDriver, root: str = "/", *, mount: Path = CGROUP_FS
) -> None:
    """Remove the ended pod's cgroup from every hierarchy; one that is gone already is fine. Blocks: run it in a thread.

    Raises Retryable while a process is still inside: nothing that lives is touched.
    """
    path = pod_cgroup_path(uid, qos, driver, root)
    folders = [folder for top in hierarchies(mount) if (folder := top / path).is_dir()]
    for folder in folders:
        if busy := _process_inside(folder):
            raise Retryable(f"cgroup {folder} still holds process {busy}")
    if driver is CgroupDriver.SYSTEMD and folders:
        _stop_slice(path.name)
    for folder in folders:
        _remove_tree(folder)


def pod_cgroups(driver: CgroupDriver, root: str = "/", *, mount: Path = CGROUP_FS) -> dict[str, QosClass]:
    """The class of each pod, by UID, that has a cgroup in some hierarchy. Raises OSError."""
    found: dict[str, QosClass] = {}
    for top in hierarchies(mount):
        for qos in QosClass:
            level = top / qos_cgroup_path(qos, driver, root)
            for folder in _folders(level):
                uid = _uid(folder.name, driver)
                # By its own path: what looks like a pod's and is another thing is not one.
                if uid and folder == top / pod_cgroup_path(uid, qos, driver, root):
                    found[uid] = qos
    return found


def is_deserted(uid: str, qos: QosClass, driver: CgroupDriver, root: str = "/", *, mount: Path = CGROUP_FS) -> bool:
    """Whether no process is in the pod's cgroup, in any hierarchy. Raises OSError."""
    path = pod_cgroup_path(uid, qos, driver, root)
    return not any(_process_inside(top / path) for top in hierarchies(mount))


def _folders(level: Path) -> list[Path]:
    try:
        with os.scandir(level) as entries:
            return [level / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _uid(folder: str, driver: CgroupDriver) -> str:
    """Of the pod that a folder is of; empty where it is none's."""
    if driver is CgroupDriver.CGROUPFS:
        return folder.removeprefix("pod") if folder.startswith("pod") else ""
    name = folder.removesuffix(".slice").rpartition("-")[2]
    return name.removeprefix("pod").replace("_", "-") if name.startswith("pod") else ""


def removed_empty_cgroup(
    uid: str, qos: QosClass, driver: CgroupDriver, root: str = "/", *, mount: Path = CGROUP_FS
) -> bool:
    """Remove a pod's cgroup in which there is nothing any more; False where something is, or systemd keeps it.

    The usual end, and much cheaper than to look first: the kernel removes no cgroup that holds a process or a cgroup.
    """
    if driver is CgroupDriver.SYSTEMD:
        return False
    path = pod_cgroup_path(uid, qos, driver, root)
    for top in hierarchies(mount):
        try:
            os.rmdir(top / path)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def _names(uid: str, qos: QosClass, root: str) -> tuple[str, ...]:
    """Guaranteed pods lie directly below kubepods. A UID may come from a manifest: it must not lead elsewhere."""
    if not uid or "/" in uid:
        raise ValueError(f"not a pod's UID: {uid!r}")
    return (*_level(qos, root), f"pod{uid}")


def _level(qos: QosClass, root: str) -> tuple[str, ...]:
    level = () if qos is QosClass.GUARANTEED else (qos.lower(),)
    return (*(part for part in root.split("/") if part), "kubepods", *level)


def _path(names: tuple[str, ...], driver: CgroupDriver) -> PurePosixPath:
    match driver:
        case CgroupDriver.CGROUPFS:
            return PurePosixPath(*names)
        case CgroupDriver.SYSTEMD:
            return PurePosixPath(*(_slice(names[: depth + 1]) for depth in range(len(names))))


def _slice(names: tuple[str, ...]) -> str:
    """A dash means nesting to systemd: those inside a name become underscores."""
    return "-".join(name.replace("-", "_") for name in names) + ".slice"


def hierarchies(mount: Path) -> list[Path]:
    """The top of every hierarchy. Version 1 has one a controller, joint ones under several (linked) names."""
    if cgroup_version(mount) is CgroupVersion.V2:
        return [mount]
    if not mount.is_dir():
        return []
    return sorted(top for top in mount.iterdir() if top.is_dir() and not top.is_symlink())


def _process_inside(folder: Path) -> str:
    """The id of one process somewhere below, empty where there is none."""
    for parent, _, files in os.walk(folder):
        if "cgroup.procs" not in files:
            continue
        try:
            first = (Path(parent) / "cgroup.procs").read_text().split(maxsplit=1)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                continue  # removed meanwhile, or a threaded cgroup, whose processes its parent lists
            raise
        if first:
            return first[0]
    return ""


def _stop_slice(name: str) -> None:
    """systemd keeps an empty slice's unit; stopping it also removes the folders. What remains is removed below."""
    try:
        subprocess.run(["systemctl", "stop", name], capture_output=True, timeout=_STOP_SLICE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return


def _remove_tree(folder: Path) -> None:
    """Cgroup folders are removed by rmdir alone: their files are the kernel's."""
    for parent, _, _ in os.walk(folder, topdown=False):
        try:
            os.rmdir(parent)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise Retryable(f"cgroup {parent} is still in use") from error
            raise
