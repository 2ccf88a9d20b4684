"""Write a payload into a volume so that a reader sees the old files or the new ones, never a mixture.

The layout is the kubelet's: the files lie in a folder `..<time>.<random>`, the link `..data` names the current one and
is replaced by a rename, and the names that users see are links through `..data`. Nothing is written where the
contents are the same, and what a crash left behind is pruned by the next write.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from agent.pods.volumes.payload import Payload, PayloadFile

_DATA: Final = "..data"
_NEW_DATA: Final = "..data_tmp"
_DIR_MODE: Final = 0o755
_GROUP_DIR: Final = stat.S_ISGID | 0o550
_GROUP_FILE: Final = 0o440
_PATH_MAX: Final = 4096
_NAME_MAX: Final = 255


def write(target: Path, payload: Payload, group: int | None = None) -> bool:
    """Make the volume folder `target`, which exists, hold exactly `payload`; True where the contents changed.

    `group` (fsGroup) owns every file and may read it. Raises ValueError for a path that leads outside, before
    anything is written, and OSError.
    """
    files = {_checked(path): file for path, file in payload.items()}
    for path in files:
        if any(parent.as_posix() in files for parent in PurePosixPath(path).parents):
            raise ValueError(f"invalid path: {path} lies below another file of the volume")
    current = _current(target)
    changed = current is None or _contents(target / current) != {path: file.data for path, file in files.items()}
    if changed:
        current = f"..{time.strftime('%Y_%m_%d_%H_%M_%S', time.gmtime())}.{secrets.randbelow(10**9):09d}"
        _write_version(target / current, files, group)
        link = target / _NEW_DATA
        link.unlink(missing_ok=True)
        link.symlink_to(current)
        link.replace(target / _DATA)
    assert current is not None
    visible = {PurePosixPath(path).parts[0] for path in files}
    for name in visible:
        _link(target / name, f"{_DATA}/{name}", group)
    _prune(target, current, visible)
    if group is not None and changed:
        os.lchown(target / _DATA, -1, group)
    return changed


def _checked(path: str) -> str:
    if not path:
        raise ValueError("invalid path: must not be empty")
    if path.startswith("/"):
        raise ValueError(f"invalid path: must be relative: {path}")
    if len(path) > _PATH_MAX:
        raise ValueError(f"invalid path: longer than {_PATH_MAX} characters")
    parts = PurePosixPath(path).parts
    if ".." in parts or not parts:
        raise ValueError(f"invalid path: must not contain '..': {path}")
    if parts[0].startswith(".."):
        raise ValueError(f"invalid path: must not start with '..': {path}")
    if any(len(part.encode()) > _NAME_MAX for part in parts):
        raise ValueError(f"invalid path: a file name is longer than {_NAME_MAX} bytes: {path}")
    return "/".join(parts)


def _current(target: Path) -> str | None:
    """The name of the version that `..data` points at, None where there is none (yet)."""
    try:
        name = os.readlink(target / _DATA)
    except FileNotFoundError:
        return None
    return name if "/" not in name and (target / name).is_dir() else None


def _contents(version: Path) -> dict[str, bytes]:
    return {str(path.relative_to(version)): path.read_bytes() for path in _files(version)}


def _files(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.is_symlink() or not entry.is_dir():
            yield entry
        else:
            yield from _files(entry)


def _write_version(version: Path, files: Mapping[str, PayloadFile], group: int | None) -> None:
    _make_dir(version, group)
    for path, file in files.items():
        parent = version
        for part in PurePosixPath(path).parts[:-1]:
            parent /= part
            if not parent.exists():
                _make_dir(parent, group)
        fd = os.open(version / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as out:
            out.write(file.data)
            if file.owner is not None or group is not None:
                os.fchown(fd, -1 if file.owner is None else file.owner, -1 if group is None else group)
            # After the chown, which drops set-id bits; and by chmod, because the umask would narrow open's mode.
            os.fchmod(fd, file.mode if group is None else file.mode | _GROUP_FILE)


def _make_dir(path: Path, group: int | None) -> None:
    path.mkdir(0o700)
    if group is not None:
        os.chown(path, -1, group)
    path.chmod(_DIR_MODE if group is None else _DIR_MODE | _GROUP_DIR)


def _link(path: Path, to: str, group: int | None) -> None:
    try:
        if os.readlink(path) == to:
            return
        path.unlink()
    except FileNotFoundError:
        pass
    except OSError:
        # Not a link. An empty folder is a mount point that was made for a nested mount; anything else is not ours.
        path.rmdir()
    path.symlink_to(to)
    if group is not None:
        os.lchown(path, -1, group)


def _prune(target: Path, current: str, visible: set[str]) -> None:
    """Drop links to files that are no more, and versions other than the current one."""
    with os.scandir(target) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_symlink():
            if entry.name != _DATA and entry.name not in visible and os.readlink(entry).startswith(f"{_DATA}/"):
                os.unlink(entry)
        elif entry.name.startswith("..") and entry.name != current and entry.is_dir():
            shutil.rmtree(entry)
