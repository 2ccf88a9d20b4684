"""Folders in which each pod has one of its own: ext4 is told, so that it need not look for inodes among dead ones.

In: the folder above. Out: it is there, and ext4 puts what is made in it into many block groups, as it does with
people's homes. In one group it would pass by all inodes that went within the last five minutes each time it makes one:
after 50 pods had come and gone that was a third of the agent's CPU for the next 50, and in containerd's folders a tenth
of all time in the kernel. Other file systems have no such flag.
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

# <linux/fs.h>: _IOR('f', 1, long), _IOW('f', 2, long) and FS_TOPDIR_FL. What is read and written is an int.
_LONG = struct.calcsize("l")
GET_FLAGS = 2 << 30 | _LONG << 16 | ord("f") << 8 | 1
SET_FLAGS = 1 << 30 | _LONG << 16 | ord("f") << 8 | 2
TOP_OF_A_TREE = 0x00020000

SNAPSHOTTER = "io.containerd.snapshotter."
CONTAINERDS = (
    ("io.containerd.grpc.v1.cri/sandboxes", 0o755),
    ("io.containerd.grpc.v1.cri/containers", 0o755),
    ("io.containerd.runtime.v2.task/k8s.io", 0o711),
)
"""Below containerd's root, of 1.6 and of 2.x, with the modes that it makes them with once it has a first pod."""


def spread_folders(above: Path, mode: int) -> None:
    """Make `above` if it is not there, and have what is made in it spread.

    Nothing depends on it: on another file system there is more to do, and what cannot be made is told by who needs it.
    """
    with suppress(OSError):
        above.mkdir(mode=mode, parents=True, exist_ok=True)
        folder = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = folder_flags(folder)
            if not flags & TOP_OF_A_TREE:
                fcntl.ioctl(folder, SET_FLAGS, struct.pack("I", flags | TOP_OF_A_TREE).ljust(_LONG, b"\0"))
        finally:
            os.close(folder)


def spread_runtime(images: Path) -> None:
    """The same for containerd's own folders. `images`: where it says that its images are; of other runtimes nothing."""
    if images.name.startswith(SNAPSHOTTER) and images.is_dir():
        spread_folders(images / "snapshots", 0o700)
        for name, mode in CONTAINERDS:
            spread_folders(images.parent / name, mode)


def folder_flags(folder: int) -> int:
    """Of an open folder. Raises OSError where the file system has none."""
    (flags,) = struct.unpack_from("I", fcntl.ioctl(folder, GET_FLAGS, bytes(_LONG)))
    return int(flags)
