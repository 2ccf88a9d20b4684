"""emptyDir and the folders that payloads are written to: an empty folder on disk, a tmpfs, or huge pages.

A folder gets its mode and group before it gets its name, a tmpfs by its mount options, so a crash leaves nothing
half made, and a volume that is there already is never touched again: it may hold a pod's data. Blocks.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from agent.pods.volumes.mounts import Mounts

_MODE: Final = 0o777
_TMPFS_MODE: Final = 0o1777
_PRIVATE: Final = 0o750


def make_folder(path: Path, group: int | None) -> None:
    """A folder that everybody may use; `group` (fsGroup) owns it and what is made in it. Raises OSError."""
    if path.is_dir():
        return
    make_private(path.parent)
    unnamed = path.with_name(f".{path.name}.new")  # a volume's name never starts with a dot
    unnamed.mkdir(_PRIVATE, exist_ok=True)
    if group is not None:
        os.chown(unnamed, -1, group)
    unnamed.chmod(_with_group(_MODE, group))
    unnamed.rename(path)


def make_tmpfs(path: Path, size_bytes: int | None, group: int | None, mounts: Mounts) -> None:
    """A tmpfs that everybody may use. Raises OSError."""
    make_folder(path, group)
    if not mounts.is_mount_point(path):
        mounts.tmpfs(path, size_bytes, _with_group(_TMPFS_MODE, group), group)


def make_hugetlbfs(path: Path, page_bytes: int, group: int | None, mounts: Mounts) -> None:
    """A file system on huge pages that everybody may use. Raises OSError."""
    make_folder(path, group)
    if not mounts.is_mount_point(path):
        mounts.hugetlbfs(path, page_bytes, _with_group(_TMPFS_MODE, group), group)


def make_private(path: Path) -> None:
    """A folder, with its parents, that only root and root's group may enter."""
    try:
        path.mkdir(_PRIVATE)
    except FileNotFoundError:
        make_private(path.parent)
        path.mkdir(_PRIVATE, exist_ok=True)
    except FileExistsError:
        pass


def _with_group(mode: int, group: int | None) -> int:
    return mode if group is None else mode | stat.S_ISGID | 0o770
