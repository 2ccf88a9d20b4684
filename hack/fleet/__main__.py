"""`python -m hack.fleet 50 100 200`: so many agents with simulated pods against one real API server, one size after
the other; what a node asks of it in a minute, in requests and bytes, and what the server pays; beside a kubelet.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hack import binaries, images
from hack.control_plane import ControlPlane
from hack.fleet.cluster import Fleet, Window, fill, open_watches, watch_idleness
from hack.kubelet import kubelet
from hack.paths import REPOSITORY
from hack.processes import DaemonError
from hack.runtime import Containerd, Generation
from hack.workspace import Workspace

KUBELET = "kubelet"
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    rows: list[Row] = []
    try:
        if not options.no_kubelet:
            _keep(_kubelet(options.pods, options.seconds), rows, options.json)
        for nodes in options.nodes:
            _keep(_fleet(nodes, options.pods, options.seconds), rows, options.json)
    except (DaemonError, binaries.BuildError, images.ImageError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    print(_table(rows))
    return 0


def _keep(row: Row, rows: list[Row], file: Path | None) -> None:
    """At once: a larger fleet may be more than the machine can bear."""
    rows.append(row)
    print(_told(row), flush=True)
    if file is not None:
        file.write_text(json.dumps(rows, indent=1))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    about = " ".join((__doc__ or "").split())
    parser = argparse.ArgumentParser(prog="python -m hack.fleet", description=about)
    add = parser.add_argument
    add(
        "nodes",
        nargs="+",
        type=int,
        metavar="N",
        help="agents at the same time; several sizes come one after the other",
    )
    add("--pods", type=int, default=10, metavar="N", help="on each node")
    add("--seconds", type=int, default=600, metavar="N", help="of idleness that are counted")
    add("--no-kubelet", action="store_true", help="leave the kubelet out")
    add("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser.parse_args(argv)


def _fleet(nodes: int, pods: int, seconds: float) -> Row:
    _say(f"{nodes} nodes")
    workspace = Workspace()
    plane = ControlPlane(workspace.folder / "control-plane")
    try:
        plane.start()
        plane.kubectl("apply", "--filename", str(REPOSITORY / "config" / "cluster" / "policies.yaml"))
        before = open_watches(plane)
        fleet = Fleet(workspace.folder / "fleet", plane, nodes)
        with fleet.running() as ready_s:
            running_s = fill(plane, fleet.names, pods)
            window = watch_idleness(plane, fleet.names, lambda: fleet.pids, seconds, before)
            more = {"ready_s": ready_s, "running_s": running_s, "rss_mib": fleet.rss_mib_a_node()}
        return _row("agent", window, more)
    finally:
        plane.stop()
        workspace.release()


def _kubelet(pods: int, seconds: float) -> Row:
    _say("a kubelet")
    workspace = Workspace()
    runtime = Containerd(workspace, Generation.DISTRIBUTION)
    plane = ControlPlane(workspace.folder / "control-plane")
    try:
        runtime.start()
        plane.start()
        before = open_watches(plane)
        daemon = kubelet(workspace, KUBELET, runtime, plane, "10.96.0.10")
        daemon.start()
        try:
            ready = ("wait", f"node/{KUBELET}", "--for=condition=Ready", "--timeout=60s")
            daemon.wait_ready(lambda: bool(plane.kubectl(*ready, check=False)), 60)
            fill(plane, [KUBELET], pods)
            window = watch_idleness(plane, [KUBELET], lambda: frozenset({daemon.pid}), seconds, before)
        finally:
            daemon.stop()
        return _row(KUBELET, window, {})
    finally:
        with suppress(DaemonError):
            runtime.remove_all_pods()
        plane.stop()
        workspace.release()


def _row(who: str, window: Window, more: Row) -> Row:
    each = window.a_node_and_minute
    kinds = sorted(window.requests.items(), key=lambda item: -item[1])
    return {
        "who": who,
        "nodes": window.nodes,
        "requests": each(window.requests.total()),
        "sent_bytes": each(window.sent),
        "received_bytes": each(window.received),
        "watches": window.open_watches / window.nodes,
        "cpu_ms": 1000 * each(window.cpu_s),
        "server_cpu_ms": 1000 * each(window.server_cpu_s),
        "server_rss_mib": window.server_rss_mib,
        "kinds": {f"{verb} {resource}": each(count) for (verb, resource), count in kinds},
        **more,
    }


COLUMNS = {
    "requests": "requests",
    "sent_bytes": "bytes sent",
    "received_bytes": "bytes received",
    "watches": "watches open",
    "cpu_ms": "CPU ms",
    "rss_mib": "RSS MiB",
    "server_cpu_ms": "server's CPU ms",
    "server_rss_mib": "server's RSS MiB",
    "ready_s": "all Ready s",
    "running_s": "pods Running s",
}


def _table(rows: list[Row]) -> str:
    lines = ["a node and minute".ljust(18) + "".join(f"{title:>17}" for title in COLUMNS.values())]
    base = rows[0] if rows[0]["who"] == KUBELET else None
    for row in rows:
        name = f"{row['nodes']} {row['who']}{'s' if row['nodes'] > 1 else ''}"
        cells = (f"{row[key]:17.1f}" if key in row else f"{'-':>17}" for key in COLUMNS)
        lines.append(name.ljust(18) + "".join(cells))
        if base is not None and row is not base:
            ratios = (
                (row[key] / base[key] if base[key] else 0.0) for key in ("requests", "sent_bytes", "received_bytes")
            )
            lines.append("  to a kubelet".ljust(18) + "".join(f"{ratio:17.2f}" for ratio in ratios))
    return "\n".join(lines)


def _told(row: Row) -> str:
    kinds = ", ".join(f"{kind} {count:.2f}" for kind, count in row["kinds"].items())
    return f"{row['nodes']} {row['who']}: requests a node and minute: {kinds}"


def _say(what: str) -> None:
    print(f"measuring {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
