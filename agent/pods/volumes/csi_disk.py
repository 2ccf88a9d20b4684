"""What is kept of CSI volumes on disk: the kubelet's `vol_data.json` beside each mount, and the folders around it.

    pods/UID/volumes/kubernetes.io~csi/VOLUME/{vol_data.json,mount}
    plugins/kubernetes.io/csi/DRIVER/SHA256(HANDLE)/{vol_data.json,globalmount}

A file is there before the driver is asked for the mount and goes after it is undone. Blocks; called in a thread.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from agent.durable_files import replace_file
from agent.errors import Retryable
from agent.model.storage import EPHEMERAL, PERSISTENT
from agent.pods.volumes.empty_dir import make_private
from agent.pods.volumes.layout import VolumePlugin, csi_staging_root, pod_dir, pods_dir
from agent.pods.volumes.mounts import Mounts

DATA_FILE: Final = "vol_data.json"
MOUNT: Final = "mount"
GLOBAL_MOUNT: Final = "globalmount"


class Published(msgspec.Struct, frozen=True):
    """A volume in a pod's folder."""

    spec_name: str
    driver: str
    handle: str
    persistent: bool
    path: Path
    """The mount; the data lie beside it."""


class Staged(msgspec.Struct, frozen=True):
    """A volume that is, or is about to be, ready on this machine for any pod."""

    driver: str
    handle: str
    path: Path


def published(root: Path, uid: str) -> Iterator[Published]:
    """Raises Retryable for data that can't be read: what they speak of may be mounted."""
    for folder in _folders(pod_dir(root, uid) / "volumes" / VolumePlugin.CSI):
        if (data := _read(folder / DATA_FILE)) is not None:
            yield Published(
                spec_name=data.get("specVolID", folder.name),
                driver=_value(data, "driverName", folder),
                handle=_value(data, "volumeHandle", folder),
                persistent=data.get("volumeLifecycleMode", PERSISTENT) == PERSISTENT,
                path=folder / MOUNT,
            )


def all_published(root: Path) -> Iterator[Published]:
    for pod in _folders(pods_dir(root)):
        yield from published(root, pod.name)


def staged(root: Path) -> Iterator[Staged]:
    for driver in _folders(csi_staging_root(root)):
        for folder in _folders(driver):
            if (data := _read(folder / DATA_FILE)) is not None:
                yield Staged(
                    _value(data, "driverName", folder), _value(data, "volumeHandle", folder), folder / GLOBAL_MOUNT
                )


def write_published(volume: Published, node: str, attachment: str) -> bool:
    """Make the folder that the mount comes into, and note what it is; whether that was not there yet."""
    make_private(volume.path.parent)
    return _write(
        volume.path.parent,
        {
            "specVolID": volume.spec_name,
            "volumeHandle": volume.handle,
            "driverName": volume.driver,
            "nodeName": node,
            "attachmentID": attachment,
            "volumeLifecycleMode": PERSISTENT if volume.persistent else EPHEMERAL,
        },
    )


def write_staged(volume: Staged) -> bool:
    """Make the folder that the driver stages into, and note what it is; whether that was not there yet."""
    make_private(volume.path)
    return _write(volume.path.parent, {"volumeHandle": volume.handle, "driverName": volume.driver})


def remove_mount(path: Path, mounts: Mounts) -> None:
    """What a driver leaves at its path, the data beside it, and the folder of both. Raises OSError."""
    if path in mounts.at_or_below(path):
        raise OSError(errno.EBUSY, "the driver left it mounted", str(path))
    _remove_folder(path)
    (path.parent / DATA_FILE).unlink(missing_ok=True)
    _remove_folder(path.parent)


def has_data(folder: Path) -> bool:
    return (folder / DATA_FILE).exists()


def _write(folder: Path, data: Mapping[str, str]) -> bool:
    target = folder / DATA_FILE
    text = msgspec.json.encode(data)
    try:
        before = target.read_bytes()
    except FileNotFoundError:
        before = b""
    if before == text:
        return False
    # On the disk before the driver is asked: after a power cut it is the only word of what is mounted.
    replace_file(target, text)
    return not before


def _read(file: Path) -> dict[str, str] | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise Retryable(f"{file}: it says what is mounted beside it and can't be read: {error}") from error


def _value(data: Mapping[str, str], key: str, folder: Path) -> str:
    if not data.get(key):
        raise Retryable(f"{folder / DATA_FILE}: {key} is missing, so nobody can unmount what is beside it")
    return data[key]


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(entry for entry in parent.iterdir() if entry.is_dir() and not entry.is_symlink())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove_folder(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.rmdir()
