"""A machine that lost its power, and one whose processes were all killed: every pod runs again, soon, once, and nothing
of before stands in its way.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from agent.cri._generated import api_pb2
from agent.cri.channel import RuntimeChannel
from agent.cri.runtime import RuntimeClient
from agent.errors import Permanent
from hack.control_plane import ControlPlane
from hack.images import BUSYBOX
from hack.runtime import Containerd, Generation
from hack.workspace import end_shims_and_containers, unmount_below
from tests.integration.agent.edge import Edge, container, is_ready, pod, restarts
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

PODS = int(os.environ.get("EDGELET_TEST_POWER_CUT_PODS", "10"))
AT_ONCE = 4
"""The agent's --parallel-starts."""
STARTS = " starts as node "
SHARE = 1.5
LOOK_EVERY_S = 0.25
START_S = 5.0
"""For the agent's first steps and the last status, on a machine that has other work."""


def lose_power(edge: Edge) -> None:
    """Memory is gone, and the files in it; the disk is as it was."""
    edge.agent.kill9()
    edge.runtime.lose_power()
    unmount_below(edge.agent.root_dir)
    edge.runtime.start()


def kill_everything(edge: Edge) -> None:
    """Agent, runtime, shims and containers end by SIGKILL, and their network namespaces go; all files stay."""
    edge.agent.kill9()
    edge.runtime.kill()
    end_shims_and_containers(edge.runtime.folder)
    for line in Path("/proc/self/mounts").read_text().splitlines():
        point = line.split()[1]
        if point.startswith(f"{edge.runtime.folder}/") and "/netns/" in point:
            subprocess.run(["umount", "--lazy", point], check=True)
            Path(point).unlink()
    edge.runtime.start()


async def alone(runtime: Containerd, namespace: str, folder: Path, count: int) -> float:
    """Seconds that the runtime needs for as many pods of one container, with nobody in between; they are removed."""
    async with RuntimeChannel(runtime.endpoint) as channel:
        client, places = RuntimeClient(channel), asyncio.Semaphore(AT_ONCE)

        async def run(number: int) -> str:
            meta = api_pb2.PodSandboxMetadata(name=f"alone-{number}", namespace=namespace, uid=f"alone-{number}")
            linux = api_pb2.LinuxPodSandboxConfig(cgroup_parent=f"{runtime.cgroup}/alone")
            sandbox = api_pb2.PodSandboxConfig(metadata=meta, log_directory=str(folder), linux=linux)
            made = api_pb2.ContainerConfig(
                metadata=api_pb2.ContainerMetadata(name="main"),
                image=api_pb2.ImageSpec(image=BUSYBOX),
                command=["sleep", "3600"],
                log_path=f"{number}.log",
            )
            async with places:
                try:
                    sandbox_id = await client.run_pod_sandbox(sandbox)
                except Permanent:
                    # A runtime that was killed while it made a file system meets that once, and clears it away.
                    sandbox_id = await client.run_pod_sandbox(sandbox)
                await client.start_container(await client.create_container(sandbox_id, made, sandbox))
            return sandbox_id

        began = time.monotonic()
        ids = await asyncio.gather(*(run(number) for number in range(count)))
        took = time.monotonic() - began
        for one in ids:
            await client.stop_pod_sandbox(one)
            await client.remove_pod_sandbox(one)
        return took


def test_after_a_power_cut_every_pod_runs_again_and_no_name_is_still_taken(
    runtimes: Callable[[Generation], Containerd],
    agent: AgentFactory,
    control_plane: ControlPlane,
    namespace: str,
    tmp_path: Path,
) -> None:
    runtime = runtimes(Generation.BUILT)  # `tests/integration/autonomy` has one with the distribution's
    survive(Edge(agent(runtime=runtime), runtime, control_plane, namespace), lose_power, tmp_path)


def test_after_all_processes_were_killed_every_pod_runs_again_and_no_name_is_still_taken(
    every_edge: Edge, tmp_path: Path
) -> None:
    survive(every_edge, kill_everything, tmp_path)


def survive(edge: Edge, disaster: Callable[[Edge], None], folder: Path) -> None:
    names = [f"n{number}" for number in range(PODS)]
    edge.run(*(pod(name, container(ports=[{"containerPort": 80}])) for name in names))
    edge.wait_ready(*names, timeout=90)
    before = {one["metadata"]["name"]: restarts(one) for one in edge.pods()}
    # Some are in the middle of their start when it happens.
    late = [f"late{number}" for number in range(3)]
    edge.run(*map(pod, late))
    wait_until(lambda: len(edge.sandboxes()) > PODS)
    disaster(edge)
    assert not [c for c in edge.containers() if c["state"] == "CONTAINER_RUNNING"]
    usual = asyncio.run(alone(edge.runtime, edge.namespace, folder, PODS + len(late)))

    starts = edge.agent_log().count(STARTS)
    edge.agent.start()
    wait_until(lambda: edge.agent_log().count(STARTS) > starts)
    began = time.monotonic()

    def again() -> bool:
        found = {one["metadata"]["name"]: one for one in edge.pods()}
        return all(is_ready(found[name]) and restarts(found[name]) == before[name] + 1 for name in names)

    # A list of so many pods, twenty times a second, would cost a sixth of two processors.
    wait_until(again, 120, LOOK_EVERY_S, "every pod runs again")
    took = time.monotonic() - began
    print(f"{PODS + len(late)} pods: the runtime alone {usual:.1f} s, after the disaster {took:.1f} s")
    edge.wait_ready(*late, timeout=60)
    assert took <= SHARE * usual + START_S, (took, usual)
    assert "is reserved for" not in edge.agent_log()
    assert not [told for name in (*names, *late) for told in edge.events(name) if told[0] == "FailedCreatePodSandBox"]
    up = [one["metadata"]["name"] for one in edge.sandboxes() if one["state"] == "SANDBOX_READY"]
    assert sorted(up) == sorted([*names, *late])
    addresses = [one["status"]["podIP"] for one in edge.pods()]
    assert len(set(addresses)) == len(addresses)
    leases = edge.runtime.folder / "addresses" / edge.runtime.bridge
    # The networks of before are taken down once nothing starts any more.
    wait_until(lambda: sorted(path.name for path in leases.glob("10.*")) == sorted(addresses), 30)
    assert "Traceback" not in edge.agent_log()
