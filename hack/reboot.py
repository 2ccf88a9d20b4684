"""`python -m hack.reboot`: a machine with 50 pods starts again without its network; how long until all of them run?

In turn with the agent containerd alone makes the same pods from the same state by plain calls, as fast as it can
(`hack.bench.bare`). A time runs from the start of containerd, and of the agent beside it, until the last container
runs. The figure is the ratio of the medians; above `--bar` the exit code is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from agent.cri.channel import RuntimeChannel
from hack import binaries, images
from hack.agent import Agent
from hack.bench.bare import LOOK_EVERY_S, Bare, BarePod
from hack.bench.cost import usage_of
from hack.control_plane import ControlPlane
from hack.ground import ground
from hack.processes import DaemonError
from hack.runtime import Containerd, Generation
from hack.workspace import end_cgroups, unmount_below

NODE, NAMESPACE = "edge", "reboot"
PARALLEL = (2, 4, 8, 16)
"""Pods at once that containerd alone is tried with; the best of them is what counts."""
LONGEST_S = 180.0
SETTLE_S = 3.0
"""For what the agent writes after the last change, and for containerd's own upkeep."""
SLEEP = "trap 'exit 0' TERM; sleep 100000 & wait"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hack.reboot", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--pods", type=int, default=50, metavar="N")
    add("--rounds", type=int, default=5, metavar="N", help="reboots of each side")
    add("--bar", type=float, default=1.5, metavar="RATIO")
    add("--flag", action="append", default=[], metavar="FLAG", help="of the agent; can be said again")
    add("--runtime", default=Generation.DISTRIBUTION.value, choices=[g.value for g in Generation], help="containerd")
    options = parser.parse_args(argv)
    try:
        with ground(Generation(options.runtime)) as (workspace, runtime, plane):
            agent = Agent(workspace.folder / "agent", NODE, runtime, plane, ["--log-level=info", *options.flag])
            try:
                agent.start()
                agent.wait_ready()
                ours, floor = asyncio.run(Reboots(agent, runtime, plane, options.pods).measure(options.rounds))
            finally:
                agent.stop()
    except (DaemonError, binaries.BuildError, images.ImageError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    ratio = statistics.median(ours) / statistics.median(floor)
    for name, seconds in (("agent", ours), ("containerd alone", floor)):
        every = " ".join(f"{one:.2f}" for one in seconds)
        print(f"{name:18}{statistics.median(seconds):7.2f} s until all {options.pods} pods run (median of {every})")
    print(f"{'ratio':18}{ratio:7.2f}   the bar is {options.bar}")
    return 0 if ratio <= options.bar else 1


class Reboots:
    def __init__(self, agent: Agent, runtime: Containerd, plane: ControlPlane, pods: int) -> None:
        self._agent = agent
        self._runtime = runtime
        self._plane = plane
        self._count = pods
        self._cpu_s = 0.0

    async def measure(self, rounds: int) -> tuple[list[float], list[float]]:
        """Seconds of each reboot: with the agent, and with containerd alone."""
        await asyncio.to_thread(self._make_pods)
        async with RuntimeChannel(self._runtime.endpoint) as channel:
            bare = Bare(channel)
            await self._all_run(bare)
            self._plane.stop()
            await asyncio.sleep(SETTLE_S)
            pods = await bare.pods()
            tried = {at_once: await self._alone(bare, pods, at_once) for at_once in PARALLEL}
            at_once = min(tried, key=lambda one: tried[one])
            told = ", ".join(f"{one} at once {seconds:.2f} s" for one, seconds in tried.items())
            print(f"containerd alone: {told}", file=sys.stderr, flush=True)
            ours, floor = [], []
            for number in range(rounds):
                ours.append(await self._with_agent(bare))
                floor.append(await self._alone(bare, pods, at_once))
                told = f"agent {ours[-1]:.2f} s ({self._cpu_s:.2f} s of its own CPU), alone {floor[-1]:.2f} s"
                print(f"{number + 1}: {told}", file=sys.stderr, flush=True)
            return ours, floor

    async def _with_agent(self, bare: Bare) -> float:
        await asyncio.to_thread(self._lose_power)
        begun = time.monotonic()
        self._runtime.daemon.start()
        self._agent.start()
        await self._all_run(bare)
        took = time.monotonic() - begun
        self._cpu_s = usage_of(self._agent.pid).cpu
        await asyncio.sleep(SETTLE_S)
        return took

    async def _alone(self, bare: Bare, pods: Sequence[BarePod], at_once: int) -> float:
        await asyncio.to_thread(self._lose_power)
        begun = time.monotonic()
        self._runtime.daemon.start()
        await bare.wait_served()
        await bare.start(pods, at_once)
        took = time.monotonic() - begun
        await self._all_run(bare)
        await bare.remove()
        await asyncio.sleep(SETTLE_S)
        return took

    def _lose_power(self) -> None:
        self._agent.kill9()
        self._runtime.lose_power()
        end_cgroups(self._runtime.cgroup)
        unmount_below(self._agent.root_dir)

    async def _all_run(self, bare: Bare) -> None:
        until = time.monotonic() + LONGEST_S
        while (running := await bare.count_running("main")) != self._count:
            if time.monotonic() > until:
                raise DaemonError(f"{running} of {self._count} containers run\n{self._agent.daemon.log_tail()}")
            await asyncio.sleep(LOOK_EVERY_S)

    # ------------------------------------------------------------ pods

    def _make_pods(self) -> None:
        self._plane.kubectl("create", "namespace", NAMESPACE)
        account = ("wait", "--for=create", "serviceaccount/default", f"--namespace={NAMESPACE}", "--timeout=30s")
        self._plane.kubectl(*account)
        objects = [
            {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"mode": "edge"}},
            {"kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"key": "sealed"}},
            *(_pod(number) for number in range(self._count)),
        ]
        listed = {"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", **one} for one in objects]}
        self._plane.kubectl("apply", f"--namespace={NAMESPACE}", "--filename=-", stdin=json.dumps(listed))
        ready = ("wait", "pods", "--all", "--for=condition=Ready", f"--timeout={LONGEST_S:.0f}s")
        self._plane.kubectl(*ready, f"--namespace={NAMESPACE}")


def _pod(number: int) -> dict[str, Any]:
    """Each has a token and a folder; every second one a ConfigMap, third a Secret, fifth an init container."""
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDir": {}}]
    env: list[dict[str, Any]] = []
    if number % 2 == 0:
        volumes.append({"name": "settings", "configMap": {"name": "settings"}})
        env.append({"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}})
    if number % 3 == 0:
        volumes.append({"name": "keys", "secret": {"secretName": "keys"}})
        env.append({"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key"}}})
    common = {
        "image": images.BUSYBOX,
        "imagePullPolicy": "IfNotPresent",
        "env": env,
        "volumeMounts": [{"name": one["name"], "mountPath": f"/{one['name']}"} for one in volumes],
    }
    first = {"name": "first", "command": ["sh", "-c", "echo ready >/scratch/ready"], **common}
    return {
        "kind": "Pod",
        "metadata": {"name": f"pod-{number}"},
        "spec": {
            "nodeName": NODE,
            "initContainers": [first] if number % 5 == 0 else [],
            "containers": [{"name": "main", "command": ["sh", "-c", SLEEP], **common}],
            "volumes": volumes,
        },
    }


if __name__ == "__main__":
    sys.exit(main())
