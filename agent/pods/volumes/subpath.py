"""subPath: one file or folder of a volume, found without ever leaving the volume.

A container may write into the volume while we look, so a path is never resolved twice: every step is taken from an
open folder with O_NOFOLLOW, links are read and walked by hand, `..` goes back to a folder that was passed on the way,
and what the last descriptor is open on is what gets mounted. Blocks; called in a thread.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from agent.pods.volumes.empty_dir import make_private
from agent.pods.volumes.mounts import Mounts

_MAX_LINKS: Final = 40
_O_PATH: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def bind(volume: Path, sub_path: str, target: Path, mounts: Mounts) -> None:
    """Show `sub_path` of a volume at `target`; a missing folder is made with the volume's own mode.

    A target that shows the right thing is left alone. Raises ValueError for a path that leads outside, OSError.
    """
    fd = open_beneath(volume, sub_path)
    try:
        wanted = os.fstat(fd)
        try:
            there = target.lstat()
        except FileNotFoundError:
            pass
        else:
            if (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino):
                return
            for point in mounts.at_or_below(target):
                mounts.unmount(point, lazy=True)
            target.rmdir() if stat.S_ISDIR(target.lstat().st_mode) else target.unlink()
        make_private(target.parent)
        if stat.S_ISDIR(wanted.st_mode):
            target.mkdir(0o750)
        else:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))
        mounts.bind(fd, target)
    finally:
        os.close(fd)


def open_beneath(volume: Path, sub_path: str, *, make: bool = True) -> int:
    """An O_PATH descriptor of `sub_path` in a volume; the caller closes it. `make` makes folders that are missing.

    Raises ValueError where the path or a link on it leads outside the volume, OSError.
    """
    if sub_path.startswith("/"):
        raise ValueError(f"subPath `{sub_path}` must not be an absolute path")
    if ".." in sub_path.split("/"):
        raise ValueError(f"subPath `{sub_path}` must not contain '..'")
    passed = [os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        mode = stat.S_IMODE(os.fstat(passed[0]).st_mode)
        ahead = _parts(sub_path)
        links = 0
        while ahead:
            name = ahead.pop()
            if name == "..":
                if len(passed) == 1:
                    raise ValueError(f"subPath `{sub_path}` leads outside the volume")
                os.close(passed.pop())
                continue
            fd = _open_or_make(name, passed[-1], mode) if make else os.open(name, _O_PATH, dir_fd=passed[-1])
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                passed.append(fd)
                continue
            try:
                to = os.readlink("", dir_fd=fd)
            finally:
                os.close(fd)
            links += 1
            if to.startswith("/") or links > _MAX_LINKS:
                raise ValueError(f"subPath `{sub_path}` leads outside the volume")
            ahead += _parts(to)
        return passed.pop()
    finally:
        for fd in passed:
            os.close(fd)


def _parts(path: str) -> list[str]:
    """The path's components, last first: a stack of what is ahead."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _open_or_make(name: str, parent: int, mode: int) -> int:
    try:
        return os.open(name, _O_PATH, dir_fd=parent)
    except FileNotFoundError:
        os.mkdir(name, 0o700, dir_fd=parent)
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.fchmod(folder, mode)
    finally:
        os.close(folder)
    return os.open(name, _O_PATH, dir_fd=parent)
