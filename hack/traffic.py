"""What a node asks of the API server: requests from its audit log, bytes from the kernel's socket counters.

Bytes are those of TCP's payload, so TLS and HTTP headers are in it, and a kubelet's HTTP/2 is measured as our HTTP/1.1.
"""

import json
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

NODE_USER = "system:node:"
SAMPLE_EVERY_S = 4.0
"""A connection's last bytes are missed when it closes: between two samples that is little."""
_COUNTED = re.compile(r"\bbytes_(sent|received):(\d+)")
_OWNER = re.compile(r"\bpid=(\d+)")


@dataclass(frozen=True, slots=True)
class Asked:
    """Requests of one kind: which node, which verb, on what."""

    node: str
    verb: str
    resource: str


def requests(audit_log: Path, begin: int = 0, end: int | None = None) -> Counter[Asked]:
    """Nodes' requests in this part of the log (bytes from the file's beginning), which holds one a line."""
    with audit_log.open("rb") as file:
        file.seek(begin)
        content = file.read(-1 if end is None else end - begin)
    found: Counter[Asked] = Counter()
    for line in content.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # cut at the part's edge
        user = event["user"]["username"]
        if user.startswith(NODE_USER) and event["stage"] in _STAGES.get(event["verb"], ("ResponseComplete", "Panic")):
            found[Asked(user.removeprefix(NODE_USER), event["verb"], _resource(event))] += 1
    return found


_STAGES = {"watch": ("ResponseStarted",)}
"""Of a request that lasts there is a line when it begins, too: that it was asked is then known."""


def _resource(event: Mapping[str, dict[str, str]]) -> str:
    about = event.get("objectRef", {})
    return "/".join(part for part in (about.get("resource", "other"), about.get("subresource", "")) if part)


@dataclass(slots=True)
class _Socket:
    base: tuple[int, int]
    last: tuple[int, int]


@dataclass(slots=True)
class Bytes:
    """Bytes of these processes' connections to a port, from `start` to `stop`: (sent, received)."""

    port: int
    pids: frozenset[int]
    _sockets: dict[str, _Socket] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _sampler: threading.Thread | None = None

    def start(self) -> None:
        self._sample(first=True)
        self._sampler = threading.Thread(target=self._run, name="bytes", daemon=True)
        self._sampler.start()

    def stop(self) -> tuple[int, int]:
        self._over.set()
        assert self._sampler is not None, "it was started"
        self._sampler.join()
        self._sample()
        sockets = self._sockets.values()
        return sum(s.last[0] - s.base[0] for s in sockets), sum(s.last[1] - s.base[1] for s in sockets)

    def _run(self) -> None:
        while not self._over.wait(SAMPLE_EVERY_S):
            self._sample()

    def _sample(self, *, first: bool = False) -> None:
        command = ["ss", "--tcp", "--info", "--numeric", "--processes", "--no-header", "dport", "=", f":{self.port}"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for name, counted in sockets_of(listed.splitlines(), self.pids):
            known = self._sockets.get(name)
            if known is None:
                self._sockets[name] = _Socket(counted if first else (0, 0), counted)
            else:
                known.last = counted


def sockets_of(lines: Iterable[str], pids: frozenset[int]) -> Iterable[tuple[str, tuple[int, int]]]:
    """From `ss`: two lines a socket, its owner on the first, its counters on the second; one of 0 is left out."""
    name = ""
    for line in lines:
        if not line[:1].isspace():
            words = line.split()
            owned = pids & {int(pid) for pid in _OWNER.findall(line)}
            name = f"{words[3]} {words[4]}" if owned else ""
        elif name:
            counted = dict(_COUNTED.findall(line))
            yield name, (int(counted.get("sent", 0)), int(counted.get("received", 0)))
