"""A numbered place for one test run: folder, bridge names, subnets and cgroup that nobody else uses at the time.

Several runs may go on side by side, so a number is held by a file lock, which ends with its holder. Whoever gets a
number first clears what an earlier holder left: processes, containers, mounts, cgroups, bridges. So even a run that was
killed cleans up in the end, by its successor.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TextIO

from hack.processes import end_leftovers

PLACES = 16
LINKS = 10
"""Network links of a place, each with a subnet: what is beyond would be the next place's."""
BASE = Path("/var/tmp")
"""Not /tmp: often a tmpfs, too small for images; and paths stay short enough for unix sockets."""


class Workspace:
    """Held from construction to `release`; needs root."""

    def __init__(self) -> None:
        self._lock, self.number = _take_number()
        self.name = f"edt{self.number}"
        self.folder = BASE / self.name
        self.cgroup = f"/{self.name}"
        self._clear()
        self.folder.mkdir(mode=0o755)

    def bridge(self, index: int) -> str:
        """Raises ValueError for one that is not this workspace's."""
        if index not in range(LINKS):
            raise ValueError(f"link {index}: a workspace has {LINKS}")
        return f"{self.name}b{index}"

    def subnet(self, index: int) -> str:
        """A /24 for the bridge."""
        return f"10.222.{self.number * 10 + index}.0/24"

    def gateway(self, index: int) -> str:
        """The host's address on the bridge, at which pods reach the host."""
        return f"10.222.{self.number * 10 + index}.1"

    def make_cgroup(self) -> None:
        """For who expects it to be there; containerd and the agent make it themselves."""
        for mount in _cgroup_mounts():
            (mount / self.name).mkdir(exist_ok=True)

    def release(self, keep_logs: bool = False) -> None:
        """Clear everything. With `keep_logs` the log files stay until the next holder of the number comes."""
        self._clear(keep_logs)
        self._lock.close()

    def _clear(self, keep_logs: bool = False) -> None:
        end_leftovers(self.folder)
        end_shims_and_containers(self.folder)
        end_cgroups(self.cgroup)
        unmount_below(self.folder)
        for index in range(LINKS):
            if Path("/sys/class/net", self.bridge(index)).exists():
                subprocess.run(["ip", "link", "delete", self.bridge(index)], check=False, capture_output=True)
        if keep_logs:
            _remove_all_but_logs(self.folder)
        elif self.folder.exists():
            shutil.rmtree(self.folder)


def _take_number() -> tuple[TextIO, int]:
    for number in range(PLACES):
        lock = (BASE / f"edt{number}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            return lock, number
    raise RuntimeError(f"all {PLACES} places for test runs are in use ({BASE}/edt*.lock)")


def end_shims_and_containers(folder: Path) -> None:
    """Shims are known by the socket that they serve, containers by the pid that containerd noted, if still theirs."""
    prefix = f"{folder}/".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"containerd-shim" in words[0] and any(word.startswith(prefix) for word in words):
                os.kill(int(process.name), signal.SIGKILL)
    noted = "state/io.containerd.runtime.v2.task/*/*/init.pid"
    for pid_file in (*folder.glob(noted), *folder.glob(f"*/{noted}")):
        with contextlib.suppress(OSError, ValueError):
            pid = int(pid_file.read_text())
            if pid_file.parent.name in Path(f"/proc/{pid}/cgroup").read_text():
                os.kill(pid, signal.SIGKILL)


def _cgroup_mounts() -> list[Path]:
    rows = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [Path(row[1]) for row in rows if row[2] in ("cgroup", "cgroup2")]


def _cgroup_folders(name: str) -> list[Path]:
    return [mount / name.strip("/") for mount in _cgroup_mounts() if (mount / name.strip("/")).is_dir()]


def end_cgroups(name: str) -> None:
    deadline = time.monotonic() + 30
    while folders := _cgroup_folders(name):
        for folder in folders:
            nested = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
            for cgroup in [*nested, folder]:
                with contextlib.suppress(OSError):
                    for pid in (cgroup / "cgroup.procs").read_text().split():
                        os.kill(int(pid), signal.SIGKILL)
                with contextlib.suppress(OSError):
                    cgroup.rmdir()
        if time.monotonic() > deadline:
            raise RuntimeError(f"cgroups below {name} can't be removed: {folders}")
        time.sleep(0.02)


def unmount_below(folder: Path) -> None:
    rows = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    # mountinfo lists in mount order; what was mounted last goes first.
    for target in reversed([row for row in rows if row.startswith(f"{folder}/")]):
        subprocess.run(["umount", "-l", target], check=False, capture_output=True)


def _remove_all_but_logs(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            elif path.suffix != ".log" or path.is_symlink():
                path.unlink()
