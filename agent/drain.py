"""`edgelet drain`: have the agent of this machine end its pods, as a shutdown does, or take that back.

In: settings (where the agent is), the command's own flags. Out: the agent's progress on stdout, and whether all pods
ended in their time. No API server is asked: it works cut off.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec

from agent.config import Settings
from agent.errors import ConfigError, Permanent
from agent.option_periods import whole_seconds
from agent.server.control import SOCKET, DrainOrder, Progress, address_of


def run(settings: Settings, arguments: Mapping[str, object]) -> int:
    """The exit code. Raises ConfigError, Permanent where no agent can be reached."""
    order = _order(arguments)
    path = settings.root_dir.absolute() / SOCKET
    ended = False
    try:
        connection = _Connection(path)
        connection.request("POST", "/drain", msgspec.json.encode(order), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise Permanent("", f"the agent refuses: {answer.read().decode(errors='replace')}")
        for line in answer:
            progress = msgspec.json.decode(line, type=Progress)
            if progress.line:
                print(progress.line, flush=True)
            if progress.ended is not None:
                ended = progress.ended
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise Permanent("", f"no agent runs with the root folder {settings.root_dir}") from error
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        raise Permanent("", f"the agent at {path} went away: {error}") from error
    return 0 if ended else 1


def _order(arguments: Mapping[str, object]) -> DrainOrder:
    from agent.node.shutdown import two_periods

    given = {name: arguments.get(name) for name in ("grace_period", "critical_grace_period")}
    seconds: dict[str, float] = {}
    for name, value in given.items():
        if value is not None:
            try:
                seconds[name] = whole_seconds(value)
            except ValueError as error:
                raise ConfigError(f"--{name.replace('_', '-')}: {error}") from error
    if arguments.get("undo"):
        if seconds:
            raise ConfigError("--undo has no grace period")
        return DrainOrder(undo=True)
    if not seconds:
        return DrainOrder()
    ordinary_s, critical_s = seconds.get("grace_period", 20), seconds.get("critical_grace_period", 10)
    return DrainOrder(periods=tuple((p.priority, p.grace_s) for p in two_periods(ordinary_s + critical_s, critical_s)))


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with address_of(self._path) as address:
            self.sock.connect(address)
