"""The settings of the containerd at a socket, where CRI does not tell them: its program says what it makes of its file.

In: a CRI endpoint. Out: its effective configuration, as TOML tables. What was changed since the daemon's start is in it
too. Source: `containerd config dump`; unix(7), SO_PEERCRED.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.cri.channel import socket_path
from agent.errors import Permanent, Retryable

DUMP_S = 30.0
PROC = Path("/proc")


def effective_config(endpoint: str) -> dict[str, Any]:
    """Blocks. Raises Retryable where the runtime is away, Permanent where it can't be asked."""
    process = PROC / str(_peer(endpoint))
    try:
        words = (process / "cmdline").read_bytes().decode(errors="surrogateescape").rstrip("\0").split("\0")
        done = subprocess.run(
            [process / "exe", *config_flags(words[1:]), "config", "dump"],
            cwd=process / "cwd",
            check=False,
            capture_output=True,
            timeout=DUMP_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Retryable(f"the runtime's settings can't be read: {error}") from error
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise Permanent("", f"the runtime's settings can't be read: {last}")
    try:
        return tomllib.loads(done.stdout.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Permanent("", f"the runtime's settings can't be read: {error}") from error


def config_flags(words: Sequence[str]) -> list[str]:
    """Of a containerd's arguments those that name its file."""
    for index, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag in ("--config", "-config", "-c", "--c"):
            return ["--config", value if equals else "".join(words[index + 1 : index + 2])]
    return []


def _peer(endpoint: str) -> int:
    """The process that listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(os.fsencode(socket_path(endpoint)))
        except OSError as error:
            raise Retryable(f"{endpoint} does not answer: {error.strerror}") from error
        pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid)
