"""What the runtime alone takes for a pod: the same calls made by hand, with nobody who waits, watches or writes.

No agent on this runtime can be faster. Delete is stopping and removing; a burst makes all its pods at once.
"""

import asyncio
import time
from uuid import uuid4

from agent.cri._generated import api_pb2 as pb
from agent.cri.channel import RuntimeChannel
from agent.cri.runtime import RuntimeClient
from hack.bench.pods import COMMAND
from hack.bench.results import Results
from hack.images import BUSYBOX
from hack.runtime import Containerd

BURST_NAME = "burst of {} → all Ready s"
MANY = 50
"""From so many pods on a burst is also looked at while it runs: what a single pod takes beside them."""
PAUSE_S = 0.2
REST_S = 3.0
"""Between two bursts: what the kernel takes down late is none of the next one's."""


async def measure_floor(runtime: Containerd, count: int, results: Results) -> None:
    """`count` pods one by one."""
    async with RuntimeChannel(runtime.endpoint) as channel:
        client = RuntimeClient(channel)
        await _end(client, *await _start(client, runtime.cgroup))  # it warms what the others find warm
        await _one_by_one(client, runtime.cgroup, count, results)


async def measure_floor_bursts(runtime: Containerd, sizes: tuple[int, ...], beside: int, results: Results) -> None:
    """One of each size; beside those of 50 and more `beside` pods one by one."""
    async with RuntimeChannel(runtime.endpoint) as channel:
        client = RuntimeClient(channel)
        await _end(client, *await _start(client, runtime.cgroup))
        for size in sizes:
            began = time.perf_counter()
            pods = await asyncio.gather(*(_start(client, runtime.cgroup) for _ in range(size)))
            results.sample(BURST_NAME.format(size), time.perf_counter() - began)
            if size >= MANY:
                await _one_by_one(client, runtime.cgroup, beside, results, beside_pods(size))
            await asyncio.gather(*(_end(client, *ids) for ids in pods))
            await asyncio.sleep(REST_S)


def beside_pods(count: int) -> str:
    """How the names of figures begin that were taken while so many pods ran."""
    return f"beside {count} pods, " if count else ""


async def _one_by_one(client: RuntimeClient, cgroup: str, count: int, results: Results, title: str = "") -> None:
    for _ in range(count):
        began = time.perf_counter()
        ids = await _start(client, cgroup)
        running = time.perf_counter()
        await asyncio.sleep(PAUSE_S)
        asked = time.perf_counter()
        answer = await client.exec_sync(ids[1], ["true"], None)
        assert answer.exit_code == 0
        answered = time.perf_counter()
        await _end(client, *ids)
        ended = time.perf_counter()
        results.add(f"{title}start → Running ms", running - began)
        results.add(f"{title}exec round trip ms", answered - asked)
        results.add(f"{title}delete → gone ms", ended - answered)
        await asyncio.sleep(PAUSE_S)


async def _start(client: RuntimeClient, cgroup: str) -> tuple[str, str]:
    uid = str(uuid4())
    sandbox = pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(name=uid, uid=uid, namespace="floor"),
        hostname="floor",
        linux=pb.LinuxPodSandboxConfig(cgroup_parent=cgroup),
    )
    sandbox_id = await client.run_pod_sandbox(sandbox)
    container = pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name="main"), image=pb.ImageSpec(image=BUSYBOX), command=COMMAND
    )
    container_id = await client.create_container(sandbox_id, container, sandbox)
    await client.start_container(container_id)
    return sandbox_id, container_id


async def _end(client: RuntimeClient, sandbox_id: str, container_id: str) -> None:
    await client.stop_container(container_id, 30)
    await client.stop_pod_sandbox(sandbox_id)
    await client.remove_pod_sandbox(sandbox_id)
