"""`python -m hack.bench`: a kubelet, then the agent, on the same containerd and control plane; a table of their ratios,
and what the runtime alone takes. Bursts are made in turn: kubelet, agent, runtime, runtime, agent, kubelet.

Compare only figures of one run: machines differ, and one machine differs from hour to hour. A run on a machine that
did something else meanwhile is called that, and its exit code is 3.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hack import binaries, images
from hack.agent import Agent
from hack.bench.chart import chart
from hack.bench.floor import measure_floor, measure_floor_bursts
from hack.bench.measure import QUICK, Load, Part, measure, measure_bursts
from hack.bench.results import Results
from hack.bench.subject import Subject
from hack.bench.table import AGENT, FLOOR, KUBELET, table, verdict
from hack.control_plane import ControlPlane
from hack.ground import ground
from hack.kubelet import kubelet, own_address
from hack.processes import DaemonError
from hack.runtime import Containerd, Generation
from hack.workspace import Workspace

NOISY_RUN = 3
CLUSTER_DNS = "10.96.0.10"


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    load = _load(options)
    results: dict[str, Results] = {}
    try:
        with ground(Generation(options.runtime)) as (workspace, runtime, plane):
            names = [options.only] if options.only else [KUBELET, AGENT]
            subjects = {name: _subject(name, workspace, runtime, plane) for name in names}
            results |= {name: Results() for name in (*subjects, FLOOR)}
            for name, subject in subjects.items():
                with _node(subject) as say:
                    measure(subject, load, results[name], say)
            _say(FLOOR)
            asyncio.run(measure_floor(runtime, load.sequential, results[FLOOR]))
            if Part.BURSTS in load.parts:
                _measure_bursts(subjects, runtime, load, results)
    except (DaemonError, binaries.BuildError, images.ImageError, TimeoutError) as problem:
        print(f"error: {problem or 'something did not happen in time'}", file=sys.stderr)
        return 1
    print(table(results))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        plain = {name: found.plain() for name, found in results.items()}
        (options.out / "bench.json").write_text(json.dumps(plain, indent=1, ensure_ascii=False))
        (options.out / "bench.svg").write_text(chart(results))
    if noise := verdict(results):
        print(f"\n{noise}", file=sys.stderr)
        return NOISY_RUN
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hack.bench", description=(__doc__ or "").partition("\n\n")[0])
    add = parser.add_argument
    full = Load()
    add("--only", choices=[KUBELET, AGENT], help="measure one of them")
    add("--quick", action="store_true", help="few of each, no burst beyond 10 and no ConfigMap: about 6 minutes")
    add("--parts", metavar="PART,…", help=f"only these: {', '.join(Part)}; {Part.LIVES} is only done when named")
    add("--sequential", type=int, metavar="N", help=f"pods one after another ({full.sequential})")
    add("--bursts", metavar="N,…", help=f"pods at once ({','.join(map(str, full.bursts))})")
    add("--rounds", type=int, metavar="N", help=f"bursts of each size, of which the medians count ({full.rounds})")
    add("--idle", type=int, metavar="SECONDS", help=f"of watching the agent do nothing ({full.idle_seconds})")
    add("--lives", type=int, metavar="N", help=f"pods that come and go before memory is read ({full.lives})")
    add("--runtime", default=Generation.DISTRIBUTION.value, choices=[g.value for g in Generation], help="containerd")
    add("--out", type=Path, metavar="DIR", help="write bench.json and bench.svg there")
    return parser.parse_args(argv)


def _load(options: argparse.Namespace) -> Load:
    load = QUICK if options.quick else Load()
    if options.parts:
        load = replace(load, parts=frozenset(Part(name) for name in options.parts.split(",")))
    if options.bursts:
        load = replace(load, bursts=tuple(int(size) for size in options.bursts.split(",")))
    given = {
        "sequential": options.sequential,
        "rounds": options.rounds,
        "idle_seconds": options.idle,
        "lives": options.lives,
    }
    return replace(load, **{name: value for name, value in given.items() if value is not None})


def _subject(name: str, workspace: Workspace, runtime: Containerd, plane: ControlPlane) -> Subject:
    if name == KUBELET:
        return Subject(name, kubelet(workspace, KUBELET, runtime, plane, CLUSTER_DNS), runtime, plane)
    # Without DNS servers a kubelet would tell each pod of it again and again.
    flags = [f"--node-ip={own_address()}", "--log-level=info", f"--cluster-dns={CLUSTER_DNS}"]
    return Subject(name, Agent(workspace.folder / "agent", AGENT, runtime, plane, flags).daemon, runtime, plane)


@contextmanager
def _node(subject: Subject) -> Iterator[Callable[[str], None]]:
    """Whoever starts it says what is done. At the end nothing of it is left: each takes the other's for orphans."""
    try:
        yield lambda what: _say(f"{subject.node}: {what}")
    finally:
        subject.daemon.stop()
        subject.plane.kubectl("delete", "node", subject.node, check=False)
        subject.runtime.remove_all_pods()


def _measure_bursts(
    subjects: Mapping[str, Subject], runtime: Containerd, load: Load, results: Mapping[str, Results]
) -> None:
    """In turn, and each round in the other direction than the one before.

    A host is faster in one minute than in another, and who comes later finds what the others left on the disk.
    """
    order = [*subjects, FLOOR]
    for number in range(load.rounds):
        for name in reversed(order) if number % 2 else order:
            if name == FLOOR:
                _say(f"{FLOOR}: bursts")
                beside = load.sequential if number == load.rounds - 1 else 0
                asyncio.run(measure_floor_bursts(runtime, load.bursts, beside, results[FLOOR]))
                continue
            with _node(subjects[name]) as say:
                measure_bursts(subjects[name], load, number, results[name], say)


def _say(what: str) -> None:
    print(f"{what} (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
