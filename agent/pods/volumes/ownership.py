"""fsGroup on a volume that outlives its pod: every file of it is given to the group.

Files get the group and its read and write bits, folders also setgid and the right to enter; links are owned, never
followed. Somebody may change the tree meanwhile, so every step is taken from an open folder. Blocks.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from agent.pods.volumes.steps import Ownership

_FILE: Final = 0o660
_FOLDER: Final = stat.S_ISGID | 0o770


def own(root: Path, ownership: Ownership) -> None:
    """Raises OSError."""
    if ownership.on_root_mismatch and _is_right(root.stat(), ownership.group):
        return
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # The root last: where the walk is cut short, OnRootMismatch must not take the tree for done.
        for _, _, files, folder in os.fwalk(".", dir_fd=top, topdown=False):
            for name in files:
                _give(name, folder, ownership.group)
            _give(".", folder, ownership.group)
    finally:
        os.close(top)


def _is_right(root: os.stat_result, group: int) -> bool:
    return root.st_gid == group and root.st_mode & _FOLDER == _FOLDER


def _give(name: str, folder: int, group: int) -> None:
    try:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            os.chown(name, -1, group, dir_fd=folder, follow_symlinks=False)
            return
        opened = f"/proc/self/fd/{fd}"
        os.chown(opened, -1, group)
        # After the chown, which drops set-id bits.
        os.chmod(opened, stat.S_IMODE(mode) | (_FOLDER if stat.S_ISDIR(mode) else _FILE))
    finally:
        os.close(fd)
