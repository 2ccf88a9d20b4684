"""The agent under measurement: its process, which can be started again, its node, and what it stands on."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from hack import traffic
from hack.bench.cost import family, usage_of
from hack.control_plane import ControlPlane
from hack.processes import Daemon, DaemonError
from hack.runtime import Containerd

READY_POLL_S = 0.02
SAMPLE_MEMORY_EVERY_S = 3.0


@dataclass(frozen=True, slots=True)
class Subject:
    node: str
    daemon: Daemon
    runtime: Containerd
    plane: ControlPlane

    @property
    def pid(self) -> int:
        return self.daemon.pid

    def start(self, timeout: float = 60) -> float:
        """Seconds from its start until its Node is Ready. Raises DaemonError."""
        began = time.perf_counter()
        self.daemon.start()
        deadline = began + timeout
        while not self._is_ready():
            if not self.daemon.running or time.perf_counter() > deadline:
                raise DaemonError(f"{self.node} is not Ready\n{self.daemon.log_tail()}")
            time.sleep(READY_POLL_S)
        return time.perf_counter() - began

    def _is_ready(self) -> bool:
        nodes = self.plane.get(f"/api/v1/nodes?fieldSelector=metadata.name%3D{self.node}")["items"]
        return any(
            c["type"] == "Ready" and c["status"] == "True"
            for node in nodes
            for c in node["status"].get("conditions", ())
        )

    def container_pid(self, container_id: str) -> int:
        tasks = self.runtime.ctr("task", "ls").splitlines()
        [pid] = [int(task.split()[1]) for task in tasks if task.startswith(container_id)]
        return pid

    def traffic(self) -> traffic.Bytes:
        return traffic.Bytes(self.plane.port, frozenset(family(self.pid)))

    def requests_since(self, offset: int) -> dict[str, int]:
        """By verb and resource, from a place in the audit log on; `log_end` gives it."""
        asked = traffic.requests(self.plane.audit_log, offset)
        return {f"{one.verb} {one.resource}": count for one, count in asked.items() if one.node == self.node}

    def log_end(self) -> int:
        return self.plane.audit_log.stat().st_size


@dataclass(slots=True)
class MemoryOverTime:
    """Samples a process' RSS in a thread of its own, for as long as the context lasts; a restarted one too.

    A later one goes on where the samples end.
    """

    daemon: Daemon
    samples: list[tuple[float, float]]
    _over: threading.Event = field(default_factory=threading.Event)
    _sampler: threading.Thread | None = None

    def __enter__(self) -> "MemoryOverTime":
        self._sampler = threading.Thread(target=self._run, name="memory", daemon=True)
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        assert self._sampler is not None
        self._sampler.join()

    def _run(self) -> None:
        began = time.monotonic() - (self.samples[-1][0] if self.samples else 0.0)
        while not self._over.wait(SAMPLE_MEMORY_EVERY_S):
            if self.daemon.running and Path(f"/proc/{self.daemon.pid}").exists():
                self.samples.append((time.monotonic() - began, usage_of(self.daemon.pid).rss))
