"""Where the developer's tools keep what they build. A leaf: standard library only."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/edgelet`, else `~/.cache/edgelet`; made where missing."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME") or "/root", ".cache")
    path = Path(base) / "edgelet"
    path.mkdir(parents=True, exist_ok=True)
    return path
