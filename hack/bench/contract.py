"""`python -m hack.bench.contract`: what the provider contract costs on the way from a pod's creation to Running.

Two agents side by side on one containerd, one as it is, one without the contract (`hack.bench.direct`), take pods in
turn. The figure is the ratio of their medians, with a 95 % interval by resampling: below 1.02 is the bar.
"""

import argparse
import asyncio
import random
import statistics
import sys
from collections.abc import Sequence

from hack import binaries, images
from hack.agent import Agent
from hack.bench.pods import Change, Pods, pods_of
from hack.control_plane import ControlPlane
from hack.ground import ground
from hack.processes import DaemonError
from hack.runtime import Containerd, Generation
from hack.workspace import Workspace

CONTRACT, DIRECT = "contract", "direct"
BAR = 1.02
RESAMPLES = 4000


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hack.bench.contract", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=100, metavar="N", help="pods on each side")
    parser.add_argument("--runtime", default=Generation.DISTRIBUTION.value, choices=[g.value for g in Generation])
    options = parser.parse_args(argv)
    try:
        with ground(Generation(options.runtime)) as (workspace, runtime, plane):
            times = _measured(workspace, runtime, plane, options.pairs)
    except (DaemonError, binaries.BuildError, images.ImageError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    for name, seconds in times.items():
        print(f"{name:10}{1000 * statistics.median(seconds):8.1f} ms start to Running (median of {len(seconds)})")
    ratio = statistics.median(times[CONTRACT]) / statistics.median(times[DIRECT])
    low, high = _interval(times[CONTRACT], times[DIRECT])
    print(f"{'ratio':10}{ratio:8.4f}    95 % between {low:.4f} and {high:.4f}; the bar is {BAR}")
    return 0 if ratio <= BAR else 1


def _measured(workspace: Workspace, runtime: Containerd, plane: ControlPlane, pairs: int) -> dict[str, list[float]]:
    agents = {
        name: Agent(workspace.folder / name, name, runtime, plane, ["--log-level=info"]) for name in (CONTRACT, DIRECT)
    }
    command = agents[DIRECT].daemon.command
    command[command.index("agent")] = "hack.bench.direct"
    try:
        for agent in agents.values():
            agent.start()
            agent.wait_ready()
        return asyncio.run(_in_turn(plane, pairs))
    finally:
        for agent in agents.values():
            agent.stop()
        runtime.remove_all_pods()


async def _in_turn(plane: ControlPlane, pairs: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {CONTRACT: [], DIRECT: []}
    async with pods_of(plane, CONTRACT) as through, pods_of(plane, DIRECT) as past:
        sides = [(CONTRACT, through), (DIRECT, past)]
        for name, pods in sides:
            await _one(pods, f"warm-{name}")
        for number in range(pairs):
            # Whoever comes second finds the machine as the first left it: each is second as often as the other.
            for name, pods in sides if number % 2 else reversed(sides):
                times[name].append(await _one(pods, f"{name}-{number}"))
    return times


async def _one(pods: Pods, name: str) -> float:
    sent = await pods.create(name)
    seconds = await pods.until(name, Change.RUNNING, timeout=30) - sent
    await pods.until(name, Change.READY, timeout=30)
    await pods.delete(name)
    await pods.until(name, Change.GONE, timeout=60)
    await asyncio.sleep(0.2)
    return seconds


def _interval(one: list[float], other: list[float]) -> tuple[float, float]:
    chance = random.Random(1)
    ratios = sorted(
        statistics.median(chance.choices(one, k=len(one))) / statistics.median(chance.choices(other, k=len(other)))
        for _ in range(RESAMPLES)
    )
    return ratios[int(0.025 * RESAMPLES)], ratios[int(0.975 * RESAMPLES)]


if __name__ == "__main__":
    sys.exit(main())
