"""A fleet beside its control plane: N agents with pods that only seem to run, in a few processes; and a kubelet.

In: how many. Out: a `Window`: what they asked of the API server in some seconds of idleness, and what it cost.
"""

import asyncio
import json
import re
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import aiohttp

from hack import traffic
from hack.bench.cost import usage_of
from hack.bench.pods import pod
from hack.control_plane import ControlPlane
from hack.paths import REPOSITORY
from hack.processes import Daemon, DaemonError

FIRST_PORT = 21000
"""Below the range of ports from which connections get theirs."""
NODES_A_PROCESS = 25
START_APART_S = 0.1
SETTLE_S = 100
"""A kubelet tells each pod once more within 90 s of its start."""
NAMESPACE = "fleet"
AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Window:
    """Of all nodes together, while nothing happened."""

    nodes: int
    seconds: float
    requests: Counter[tuple[str, str]]
    """By verb and resource; watches when they begin."""
    sent: int
    received: int
    """Bytes of TCP's payload."""
    open_watches: float
    cpu_s: float
    server_cpu_s: float
    server_rss_mib: float

    def a_node_and_minute(self, value: float) -> float:
        return 60 * value / self.seconds / self.nodes


class Fleet:
    """Started by `running`, with pods by `fill`."""

    def __init__(self, folder: Path, plane: ControlPlane, nodes: int) -> None:
        self.names = [f"fleet-{number}" for number in range(nodes)]
        self._plane = plane
        folder.mkdir()
        certificate, key = plane.serving_certificate(folder, "serving", ["127.0.0.1"])
        self._processes: list[Daemon] = []
        self._bases: list[Path] = []
        for first in range(0, nodes, NODES_A_PROCESS):
            place = folder / str(first)
            place.mkdir()
            flags = [
                {
                    "node_name": name,
                    "kubeconfig": str(plane.node_kubeconfig(name)),
                    "provider": "mock",
                    "root_dir": str(place / name),
                    "node_ip": "127.0.0.1",
                    "port": str(FIRST_PORT + number),
                    "tls_cert_file": str(certificate),
                    "tls_private_key_file": str(key),
                    "local_api": "",
                    "disable_taint": "true",
                }
                for number, name in list(enumerate(self.names))[first : first + NODES_A_PROCESS]
            ]
            spec, base = place / "nodes.json", place / "base"
            spec.write_text(json.dumps({"flags": flags, "apart_s": START_APART_S, "base": str(base)}))
            command: list[str | Path] = [sys.executable, "-m", "hack.fleet.nodes", spec]
            self._processes.append(Daemon("nodes", command, place, {"PYTHONPATH": str(REPOSITORY)}, place))
            self._bases.append(base)

    @contextmanager
    def running(self) -> Iterator[float]:
        """Seconds until every Node was Ready. Raises DaemonError."""
        began = time.monotonic()
        try:
            for process in self._processes:
                process.start()
            self._processes[0].wait_ready(self._all_ready, 60 + len(self.names))
            yield time.monotonic() - began
        finally:
            for process in self._processes:
                process.stop()

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(process.pid for process in self._processes)

    def rss_mib_a_node(self) -> float:
        """Beyond what the code costs, which a process has once."""
        grown = sum(usage_of(process.pid).rss for process in self._processes)
        for base in self._bases:
            [rss] = re.findall(r"^Rss: +(\d+) kB", base.read_text(), re.MULTILINE)
            grown -= int(rss) / 1024
        return grown / len(self.names)

    def _all_ready(self) -> bool:
        for process in self._processes:
            if not process.running:
                raise DaemonError(f"nodes ended with {process.exit_code}\n{process.log_tail()}")
        nodes = self._plane.get("/api/v1/nodes")["items"]
        ready = [
            node["metadata"]["name"]
            for node in nodes
            if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", ()))
        ]
        return set(self.names) <= set(ready)


def fill(plane: ControlPlane, names: Sequence[str], pods_a_node: int) -> float:
    """Make pods on each of the nodes; seconds until all run."""
    plane.kubectl("create", "namespace", NAMESPACE, check=False)
    account = ("wait", "--for=create", "serviceaccount/default", f"--namespace={NAMESPACE}", "--timeout=30s")
    plane.kubectl(*account)
    began = time.monotonic()
    asyncio.run(_make(plane, [(f"{name}-{number}", name) for name in names for number in range(pods_a_node)]))
    wanted = {f"{name}-{number}" for name in names for number in range(pods_a_node)}
    deadline = time.monotonic() + 120 + len(wanted) / 5
    while wanted:
        time.sleep(0.5)
        items = plane.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
        wanted -= {item["metadata"]["name"] for item in items if item["status"].get("phase") == "Running"}
        if time.monotonic() > deadline:
            raise DaemonError(f"{len(wanted)} pods do not run, {sorted(wanted)[0]} is one of them")
    return time.monotonic() - began


async def _make(plane: ControlPlane, pods: Sequence[tuple[str, str]]) -> None:
    gate = asyncio.Semaphore(AT_ONCE)
    url = f"{plane.url}/api/v1/namespaces/{NAMESPACE}/pods"

    async def make(session: aiohttp.ClientSession, name: str, node: str) -> None:
        async with gate:
            for pause in (1, 5, 15, None):  # a busy API server may hang up
                try:
                    async with session.post(url, json=pod(name, node)) as answer:
                        if answer.status != HTTPStatus.CONFLICT:  # else an earlier try went through
                            answer.raise_for_status()
                        return
                except aiohttp.ClientError:
                    if pause is None:
                        raise
                    await asyncio.sleep(pause)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=plane.tls)) as session:
        await asyncio.gather(*(make(session, name, node) for name, node in pods))


def watch_idleness(
    plane: ControlPlane, names: Sequence[str], pids: Callable[[], frozenset[int]], seconds: float, watches_before: float
) -> Window:
    """Wait until things are quiet, then look for so long. `watches_before`: those that were open without the nodes."""
    time.sleep(SETTLE_S)
    server = plane.api_server.pid
    counted = traffic.Bytes(plane.port, pids())
    begin, began = plane.audit_log.stat().st_size, time.monotonic()
    cpu, server_cpu = sum(usage_of(pid).cpu for pid in pids()), usage_of(server).cpu
    counted.start()
    time.sleep(seconds)
    sent, received = counted.stop()
    passed = time.monotonic() - began
    time.sleep(2)  # until the audit log is written: of what comes meanwhile as much is missing at the beginning
    asked = traffic.requests(plane.audit_log, begin)
    requests: Counter[tuple[str, str]] = Counter()
    for one, count in asked.items():
        if one.node in names:
            requests[one.verb, one.resource] += count
    after = usage_of(server)
    return Window(
        nodes=len(names),
        seconds=passed,
        requests=requests,
        sent=sent,
        received=received,
        open_watches=open_watches(plane) - watches_before,
        cpu_s=sum(usage_of(pid).cpu for pid in pids()) - cpu,
        server_cpu_s=after.cpu - server_cpu,
        server_rss_mib=after.rss,
    )


def open_watches(plane: ControlPlane) -> float:
    """Of all clients, as the API server counts them."""
    with urllib.request.urlopen(f"{plane.url}/metrics", context=plane.tls, timeout=30) as answer:
        text: str = answer.read().decode()
    lines = (line for line in text.splitlines() if line.startswith("apiserver_longrunning_requests{"))
    return sum(float(line.rpartition(" ")[2]) for line in lines if 'verb="WATCH"' in line)
