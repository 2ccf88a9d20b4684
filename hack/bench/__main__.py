"""`python -m hack.bench`: a kubelet, then the agent, on the same containerd and control plane; a table of their ratios.

Compare only figures of one run: machines differ, and one machine differs from hour to hour.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hack import binaries, images
from hack.agent import Agent
from hack.bench.measure import Figures, Load, Subject, measure
from hack.control_plane import ControlPlane
from hack.ground import ground
from hack.kubelet import kubelet, own_address
from hack.processes import DaemonError
from hack.runtime import Containerd, Generation
from hack.workspace import Workspace

KUBELET, EDGELET = "kubelet", "edgelet"


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    load = Load(options.sequential, options.crashes, options.burst, options.idle)
    try:
        with ground(Generation(options.runtime)) as (workspace, runtime, plane):
            agents = [options.only] if options.only else [KUBELET, EDGELET]
            results = {name: _bench(name, workspace, runtime, plane, load) for name in agents}
    except (DaemonError, binaries.BuildError, images.ImageError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    print(_table(results))
    if options.json:
        options.json.write_text(json.dumps({name: asdict(figures) for name, figures in results.items()}, indent=1))
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hack.bench", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    full = Load()
    add("--only", choices=[KUBELET, EDGELET], help="measure one of them")
    add("--sequential", type=int, default=full.sequential, metavar="N", help="pods one after another")
    add("--crashes", type=int, default=full.crashes, metavar="N", help="containers killed")
    add("--burst", type=int, default=full.burst, metavar="N", help="pods at once")
    add("--idle", type=int, default=full.idle_seconds, metavar="SECONDS", help="of watching the agent do nothing")
    add("--runtime", default=Generation.DISTRIBUTION.value, choices=[g.value for g in Generation], help="containerd")
    add("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser.parse_args(argv)


def _bench(name: str, workspace: Workspace, runtime: Containerd, plane: ControlPlane, load: Load) -> Figures:
    print(f"measuring {name}", file=sys.stderr, flush=True)
    agent = Agent(
        workspace.folder / "agent", EDGELET, runtime, plane, [f"--node-ip={own_address()}", "--log-level=info"]
    )
    daemon = agent.daemon if name == EDGELET else kubelet(workspace, KUBELET, runtime, plane)
    daemon.start()
    try:
        ready = ("wait", f"node/{name}", "--for=condition=Ready", "--timeout=60s")
        daemon.wait_ready(lambda: bool(plane.kubectl(*ready, check=False)), 60)
        return asyncio.run(measure(Subject(name, daemon.pid, runtime, plane), load))
    finally:
        # Each would take the other's pods for orphans.
        daemon.stop()
        plane.kubectl("delete", "node", name, check=False)
        runtime.remove_all_pods()


def _table(results: dict[str, Figures]) -> str:
    header = [" " * 28, *(f"{name:>10}" for name in results)]
    if both := KUBELET in results and EDGELET in results:
        header.append("     ratio")
    lines = ["".join(header)]
    for figure in Figures.names():
        values = [getattr(figures, figure) for figures in results.values()]
        cells = [" " * 9 + "-" if value is None else f"{value:10.{0 if value >= 100 else 1}f}" for value in values]
        if both:
            base, ours = (getattr(results[name], figure) for name in (KUBELET, EDGELET))
            cells.append(f"{ours / base:10.2f}" if base and ours is not None else " " * 9 + "-")
        lines.append(f"{figure.replace('_', ' '):28}" + "".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
