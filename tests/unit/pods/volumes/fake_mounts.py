"""Mounts without root: remembers what would be mounted where."""

import errno
import os
from pathlib import Path


class FakeMounts:
    def __init__(self) -> None:
        self.tmpfs_at: dict[Path, tuple[int | None, int, int | None]] = {}
        self.bound: dict[Path, Path] = {}
        self.busy: set[Path] = set()

    def is_mount_point(self, path: Path) -> bool:
        return path in self.tmpfs_at

    def tmpfs(self, path: Path, size_bytes: int | None, mode: int, group: int | None) -> None:
        assert path.is_dir()
        self.tmpfs_at[path] = (size_bytes, mode, group)

    def hugetlbfs(self, path: Path, page_bytes: int, mode: int, group: int | None) -> None:
        self.tmpfs(path, page_bytes, mode, group)

    def bind(self, source_fd: int, target: Path) -> None:
        self.bound[target] = Path(os.readlink(f"/proc/self/fd/{source_fd}"))

    def unmount(self, path: Path, lazy: bool = False) -> None:
        if path in self.busy and not lazy:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        if self.tmpfs_at.pop(path, None) is None and self.bound.pop(path, None) is None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))

    def at_or_below(self, path: Path) -> tuple[Path, ...]:
        points = [point for point in (*self.tmpfs_at, *self.bound) if point.is_relative_to(path)]
        return tuple(sorted(points, key=lambda point: -len(point.parts)))
