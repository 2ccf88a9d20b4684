"""kubectl as people use it: with pipes, at a terminal, in the background."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hack import binaries

LIMIT_S = 120


class Kubectl:
    def __init__(self, kubeconfig: Path, namespace: str, websockets: bool) -> None:
        self._command = [str(binaries.find("kubectl")), f"--kubeconfig={kubeconfig}", f"--namespace={namespace}"]
        said = str(websockets).lower()
        self._environment = {
            **os.environ,
            "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": said,
            "KUBECTL_PORT_FORWARD_WEBSOCKETS": said,
        }

    def __call__(self, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [*self._command, *args]
        return subprocess.run(
            command, input=stdin, capture_output=True, check=False, timeout=LIMIT_S, env=self._environment
        )

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen([*self._command, *args], stdin=pipe, stdout=pipe, stderr=pipe, env=self._environment)

    @contextmanager
    def port_forward(self, pod: str, port: int) -> Iterator[int]:
        """The local port."""
        process = self.start("port-forward", f"pod/{pod}", f":{port}")
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            match = re.search(r":(\d+) -> ", line)
            assert match is not None, line or process.communicate()[1].decode()
            yield int(match[1])
        finally:
            process.kill()
            process.communicate()

    @contextmanager
    def terminal(self, *args: str, rows: int, columns: int) -> Iterator[Terminal]:
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(self._command[0], [*self._command, *args], self._environment)
        shown = Terminal(pid, terminal)
        try:
            shown.resize(rows, columns)
            yield shown
        finally:
            if shown.exit_code is None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            os.close(terminal)


class Terminal:
    def __init__(self, pid: int, terminal: int) -> None:
        self.pid = pid
        self.exit_code: int | None = None
        self._terminal = terminal

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def read_until(self, pattern: str) -> str:
        """What was shown up to a match, and with it."""
        shown, deadline = "", time.monotonic() + 15
        while re.search(pattern, shown) is None:
            assert time.monotonic() < deadline, f"no {pattern!r} in {shown!r}"
            if select.select([self._terminal], [], [], 0.2)[0]:
                shown += os.read(self._terminal, 65536).decode(errors="replace")
        return shown

    def wait(self) -> int:
        self.exit_code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.exit_code
