"""Remove a folder tree and never reach across a mount point.

A pod's folder holds what its containers left behind: links, trees of any depth, and perhaps a mount that nobody
expected. So every subfolder is first renamed to the top of the tree, which the kernel refuses for a mount point
(EBUSY) and which needs no recursion; links are removed, never followed. Blocks; called in a thread.
"""

from __future__ import annotations

import os
import secrets
from itertools import count
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove `path` and all below. No error where it is gone already.

    Raises OSError at the first thing that can't be removed, a mount point above all; a later call goes on from there.
    """
    try:
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        device = os.fstat(top).st_dev
        prefix = f".removed-{secrets.token_hex(4)}-"
        numbers = count()
        while waiting := _empty(top, top, device, prefix, numbers):
            for name in waiting:
                folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
                try:
                    _empty(folder, top, device, prefix, numbers)
                finally:
                    os.close(folder)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    path.rmdir()


def _empty(folder: int, top: int, device: int, prefix: str, numbers: count[int]) -> list[str]:
    """Remove a folder's files and move its subfolders to the top; the names that they have there now."""
    if os.fstat(folder).st_dev != device:
        raise OSError(f"{os.readlink(f'/proc/self/fd/{folder}')} is on another file system: not removed")
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    moved = []
    for name, is_folder in found:
        if not is_folder:
            os.unlink(name, dir_fd=folder)
            continue
        here = f"{prefix}{next(numbers)}"
        os.rename(name, here, src_dir_fd=folder, dst_dir_fd=top)
        moved.append(here)
    return moved
