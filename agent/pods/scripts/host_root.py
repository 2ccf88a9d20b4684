"""Read what a host program's container needs to know of this machine: its top folders, mounts and users.

In: the root folder, the kernel's list of mounts, the user database. Out: a frozen `Host`. Blocks: run it in a thread.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from agent.pods.scripts.host_program import HOSTNAME, HOSTS, RESOLV_CONF, Account, Host, HostFolder

_MOUNTS = Path("/proc/self/mountinfo")
_CGROUPS = "/sys/fs/cgroup"
_NOT_BOUND = frozenset({"proc", "lost+found"})
"""/proc is mounted anew, of the host's processes, since the container shares them."""


def read_host(user: int | None, root: Path = Path("/"), mounts: Path = _MOUNTS) -> Host:
    """`user`: whose groups are wanted; None or 0: nobody's. Raises OSError."""
    propagates = mount_points(mounts.read_text(errors="surrogateescape").splitlines())
    folders = [
        HostFolder(f"/{name}", propagates[_mount_of(os.path.realpath(root / name), propagates)])
        for name in sorted(os.listdir(root))
        if name not in _NOT_BOUND and (root / name).is_dir()
    ]
    if (root / _CGROUPS[1:]).is_dir():
        # The runtime would put the container's own view of the cgroups there.
        folders.append(HostFolder(_CGROUPS, propagates=False))
    files = tuple(path for path in (HOSTS, HOSTNAME, RESOLV_CONF) if (root / path[1:]).is_file())
    return Host(tuple(folders), files, account(user) if user else None)


def account(user: int) -> Account | None:
    """None where the machine does not know the user: it has no groups then."""
    try:
        found = pwd.getpwuid(user)
    except KeyError:
        return None
    return Account(found.pw_gid, tuple(sorted(os.getgrouplist(found.pw_name, found.pw_gid))))


def mount_points(lines: Iterable[str]) -> dict[str, bool]:
    """Every mount point of /proc/self/mountinfo, and whether it hears of changes on the host: it is shared, or follows
    one that is. Of several at one place the last is on top.
    """
    found = {"/": False}
    for line in lines:
        before, _, _ = line.partition(" - ")
        fields = before.split(" ")
        found[_unescaped(fields[4])] = any(field.startswith(("shared:", "master:")) for field in fields[6:])
    return found


def _mount_of(path: str, mounted: Mapping[str, bool]) -> str:
    return next(str(p) for p in (PurePosixPath(path), *PurePosixPath(path).parents) if str(p) in mounted)


def _unescaped(path: str) -> str:
    """The kernel writes blanks and backslashes as octal numbers."""
    for code, char in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        path = path.replace(code, char)
    return path
