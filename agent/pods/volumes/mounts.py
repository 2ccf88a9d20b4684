"""The kernel's mount calls that volumes need, and the list of what is mounted.

A thin adapter over mount(2), umount2(2) and /proc/self/mountinfo; a failed call is OSError with the kernel's errno.
Calls block: the caller is in a thread. Volumes know it as the Protocol `Mounts`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
from functools import cache
from pathlib import Path
from typing import Final, NoReturn, Protocol


class Mounts(Protocol):
    def is_mount_point(self, path: Path) -> bool:
        """True where another file system than its parent's is at `path`; False where there is no such path."""

    def tmpfs(self, path: Path, size_bytes: int | None, mode: int, group: int | None) -> None:
        """Mount an empty tmpfs; `mode` and `group` are those of its root. None: the kernel's default size."""

    def hugetlbfs(self, path: Path, page_bytes: int, mode: int, group: int | None) -> None:
        """Mount an empty hugetlbfs with pages of this size, one that the kernel has."""

    def bind(self, source_fd: int, target: Path) -> None:
        """Show what the descriptor is open on at `target` as well."""

    def unmount(self, path: Path, lazy: bool = False) -> None:
        """Take the topmost mount at `path` away; `lazy` does it even while somebody uses it."""

    def at_or_below(self, path: Path) -> tuple[Path, ...]:
        """Every mount point at or below `path`, deepest first. One that lies under another appears as often."""


MS_BIND: Final = 4096
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8


class KernelMounts:
    def __init__(self) -> None:
        self._noswap = True

    def is_mount_point(self, path: Path) -> bool:
        try:
            here = path.lstat()
        except FileNotFoundError:
            return False
        return stat.S_ISDIR(here.st_mode) and here.st_dev != path.parent.lstat().st_dev

    def tmpfs(self, path: Path, size_bytes: int | None, mode: int, group: int | None) -> None:
        options = [f"mode={mode:o}"]
        if size_bytes is not None:
            options.append(f"size={size_bytes}")
        if group is not None:
            options.append(f"gid={group}")
        if self._noswap:
            # Secrets must not reach a disk through swap. Linux knows the option from 6.4 on.
            try:
                _mount("tmpfs", path, "tmpfs", 0, ",".join([*options, "noswap"]))
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._noswap = False
            else:
                return
        _mount("tmpfs", path, "tmpfs", 0, ",".join(options))

    def hugetlbfs(self, path: Path, page_bytes: int, mode: int, group: int | None) -> None:
        options = [f"pagesize={page_bytes}", f"mode={mode:o}"]
        if group is not None:
            options.append(f"gid={group}")
        _mount("nodev", path, "hugetlbfs", 0, ",".join(options))

    def bind(self, source_fd: int, target: Path) -> None:
        _mount(f"/proc/self/fd/{source_fd}", target, None, MS_BIND, None)

    def unmount(self, path: Path, lazy: bool = False) -> None:
        flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)
        if _libc().umount2(os.fsencode(path), flags) != 0:
            _raise(path)

    def at_or_below(self, path: Path) -> tuple[Path, ...]:
        return mount_points(Path("/proc/self/mountinfo").read_bytes(), path)


def mount_points(mountinfo: bytes, path: Path) -> tuple[Path, ...]:
    """Those of a mountinfo file that are at or below `path`, deepest first. `path` must be free of links."""
    wanted = os.fsencode(path)
    found = []
    for line in mountinfo.splitlines():
        point = line.split(b" ", 5)[4]
        if b"\\" in point:
            point = _OCTAL.sub(lambda escaped: bytes([int(escaped[1], 8)]), point)
        if point == wanted or point.startswith(wanted + b"/"):
            found.append(Path(os.fsdecode(point)))
    return tuple(sorted(found, key=lambda point: -len(point.parts)))


_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
    libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
    return libc


def _mount(source: str, target: Path, fstype: str | None, flags: int, options: str | None) -> None:
    result = _libc().mount(
        source.encode(),
        os.fsencode(target),
        None if fstype is None else fstype.encode(),
        flags,
        None if options is None else options.encode(),
    )
    if result != 0:
        _raise(target)


def _raise(path: Path) -> NoReturn:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), str(path))
