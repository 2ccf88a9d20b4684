"""Write a file whole or not at all, over a power cut too. Everything here blocks for moments."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(file: Path, content: bytes, mode: int = 0o666) -> None:
    """`mode` is that of a new file, less the process's umask. Raises OSError, and the file is as it was before."""
    fresh = fresh_name(file)
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)


def write_private(file: Path, content: bytes) -> None:
    """The same, never readable by others, and there after a power cut when this returns. Raises OSError."""
    replace_file(file, content, 0o600)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """What names are in it is on the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fresh_name(file: Path) -> Path:
    """Under which `replace_file` writes it: what a power cut in between leaves."""
    return file.with_name(f".{file.name}.new")
