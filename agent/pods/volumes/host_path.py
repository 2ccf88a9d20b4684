"""hostPath: a path of the machine, checked or made as its type says. Blocks; called in a thread."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def check(path: Path, kind: str) -> None:
    """Hold `path` against a hostPath type, making what an …OrCreate type asks for. An empty type checks nothing.

    Raises ValueError with the kubelet's words where it is something else, OSError where it can't be made.
    """
    if ".." in path.parts:
        raise ValueError(f"invalid HostPath `{path}`: must not contain '..'")
    if not path.is_absolute():
        raise ValueError(f"invalid HostPath `{path}`: must be an absolute path")
    match kind:
        case "":
            return
        case "DirectoryOrCreate" if not path.exists():
            path.mkdir(0o755, parents=True, exist_ok=True)
            return
        case "FileOrCreate" if not path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
            return
        case "Directory" | "DirectoryOrCreate":
            right, wanted = stat.S_ISDIR(_mode(path)), "a directory"
        case "File" | "FileOrCreate":
            right, wanted = stat.S_ISREG(_mode(path)), "a file"
        case "Socket":
            right, wanted = stat.S_ISSOCK(_mode(path)), "a socket file"
        case "CharDevice":
            right, wanted = stat.S_ISCHR(_mode(path)), "a character device"
        case "BlockDevice":
            right, wanted = stat.S_ISBLK(_mode(path)), "a block device"
        case _:
            raise ValueError(f"{kind} is an invalid volume type")
    if not right:
        raise ValueError(f"hostPath type check failed: {path} is not {wanted}")


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return 0
