"""What file systems hold and what folders take. Blocks: a large folder is walked file by file."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec.structs import replace

_BLOCK = 512
"""The unit of st_blocks on Linux, whatever the file system's own is."""


class FileSystem(msgspec.Struct, frozen=True):
    available_bytes: int
    capacity_bytes: int
    used_bytes: int
    inodes: int
    inodes_free: int
    inodes_used: int


def file_system(path: Path) -> FileSystem | None:
    """The one that holds the path; None where the path is gone."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return FileSystem(
        available_bytes=found.f_bavail * found.f_frsize,
        capacity_bytes=found.f_blocks * found.f_frsize,
        used_bytes=(found.f_blocks - found.f_bfree) * found.f_frsize,
        inodes=found.f_files,
        inodes_free=found.f_ffree,
        inodes_used=found.f_files - found.f_ffree,
    )


def folder(path: Path) -> FileSystem | None:
    """What the folder itself takes of the file system that holds it; other file systems below it are not counted."""
    around = file_system(path)
    if around is None:
        return None
    used, inodes = taken(path)
    return replace(around, used_bytes=used, inodes_used=inodes)


def taken(path: Path) -> tuple[int, int]:
    """Bytes and inodes of a folder with everything in it; a file with several names counts once."""
    try:
        top = os.lstat(path)
    except OSError:
        return 0, 0
    seen = {top.st_ino}
    used = top.st_blocks * _BLOCK
    folders = [os.fspath(path)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue  # removed meanwhile
                    if found.st_dev != top.st_dev or found.st_ino in seen:
                        continue
                    seen.add(found.st_ino)
                    used += found.st_blocks * _BLOCK
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:
            continue  # removed meanwhile, or not for us
    return used, len(seen)


def files(folder: Path) -> tuple[int, int]:
    """Bytes and number of the files in a folder, by their length and not below it; none where it is not there."""
    used = number = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                used += entry.stat(follow_symlinks=False).st_size
                number += 1
    except OSError:
        pass  # not there yet, or rotated away just now
    return used, number
