"""Whether the machine's kernel enforces AppArmor profiles."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_MODULE = "sys/module/apparmor/parameters/enabled"


@cache
def app_armor(top: Path = Path("/")) -> bool:
    """It is decided at boot. Asked as the runtime asks: by the module, not by the security file system's mount."""
    try:
        return (top / _MODULE).read_text().startswith("Y")
    except OSError:
        return False
