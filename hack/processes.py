"""A long-running child process: its log, its readiness, its end.

The pid is also written beside the log together with the kernel's start time, so that a later run can end exactly what
an earlier run, killed before it could clean, left behind (`end_leftovers`).
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class DaemonError(Exception):
    """A child did not start or ended by itself; the message carries the end of its log."""


class Daemon:
    """One child in a session of its own (Ctrl-C reaches only the parent, which then stops its children in order)."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        env: Mapping[str, str] | None = None,
        working_folder: Path | None = None,
    ) -> None:
        self.name = name
        self.command = [str(part) for part in command]
        self.log = folder / f"{name}.log"
        self._pid_file = folder / f"{name}.pid"
        self._working_folder = working_folder
        self.env = {**os.environ, **(env or {})}
        """Of the next start."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Raises DaemonError when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise DaemonError(f"{self.name} does not run\n{self.log_tail()}")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Negative: the signal that ended it. None: it runs, or was never started."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        if self.running:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self._working_folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._pid_file.write_text(f"{self._process.pid} {_start_time(self._process.pid)}")

    def wait_ready(self, is_ready: Callable[[], bool], timeout: float) -> None:
        """Raises DaemonError when it ends first or is not ready in `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not is_ready():
            if not self.running:
                raise DaemonError(f"{self.name} ended with {self.exit_code}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise DaemonError(f"{self.name} is not ready after {timeout:g} s\n{self.log_tail()}")
            time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        """The exit code. Raises DaemonError when it still runs after `timeout` seconds."""
        if self._process is None:
            raise DaemonError(f"{self.name} was never started")
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise DaemonError(f"{self.name} still runs after {timeout:g} s\n{self.log_tail()}") from None

    def stop(self, timeout: float = 15) -> None:
        """SIGTERM, and SIGKILL when that was not enough in `timeout` seconds."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL, as a crash would be."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._pid_file.unlink(missing_ok=True)

    def log_tail(self, lines: int = 40) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def end_leftovers(folder: Path) -> None:
    """End the daemons whose pid files lie below `folder`, where the pid still means the same process."""
    for pid_file in folder.rglob("*.pid"):
        with contextlib.suppress(ValueError, OSError):
            pid, start_time = map(int, pid_file.read_text().split())
            if _start_time(pid) == start_time:
                os.kill(pid, signal.SIGKILL)
            pid_file.unlink()


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start_time(pid: int) -> int:
    """Clock ticks after boot at which the process began (field 22 of stat); 0 when there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0
