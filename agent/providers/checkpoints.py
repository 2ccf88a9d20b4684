"""Where a checkpoint is kept: as a kubelet names it, in a folder of root's own, for a container's memory is in it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path


def new_archive(root_dir: Path, namespace: str, pod: str, container: str) -> Path:
    """The path for one made now; its folder exists. Raises OSError. Blocks."""
    folder = root_dir.absolute() / "checkpoints"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return folder / f"checkpoint-{pod}_{namespace}-{container}-{when}.tar"
