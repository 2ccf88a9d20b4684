"""Changes on their way: a ConfigMap's into the file in a pod, a pod's readiness into its status."""

import asyncio
import time
from pathlib import Path

from hack.bench.pods import Change, Pods
from hack.bench.results import Results
from hack.bench.subject import Subject

FILE_POLL_S = 0.01
FILE_TIMEOUT_S = 180
PROBE = {"exec": {"command": ["test", "-f", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 1}


async def configmap_to_file(subject: Subject, pods: Pods, count: int, results: Results) -> None:
    url = pods.url.replace("/pods", "/configmaps")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "watched"}, "data": {"key": "0"}}
    async with pods.session.post(url, json=body) as answer:
        answer.raise_for_status()
    volume = {"name": "config", "configMap": {"name": "watched"}}
    await pods.create("reader", {"volumeMounts": [{"name": "config", "mountPath": "/etc/config"}]}, volumes=[volume])
    await pods.until("reader", Change.READY)
    pid = await asyncio.to_thread(subject.container_pid, pods.container_id("reader"))
    file = Path(f"/proc/{pid}/root/etc/config/key")
    for value in (str(number + 1) for number in range(count)):
        sent = time.perf_counter()
        async with pods.session.patch(
            f"{url}/watched", json={"data": {"key": value}}, headers={"Content-Type": "application/merge-patch+json"}
        ) as answer:
            answer.raise_for_status()
        await asyncio.to_thread(_wait_for, file, value)
        results.add("ConfigMap changed → in the pod's file ms", time.perf_counter() - sent, by_chance=True)
    await pods.delete("reader")
    await pods.until("reader", Change.GONE)


def _wait_for(file: Path, value: str) -> None:
    deadline = time.monotonic() + FILE_TIMEOUT_S
    while _content(file) != value:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{file} does not change")
        time.sleep(FILE_POLL_S)


def _content(file: Path) -> str:
    try:
        # The link through `..data` is of the container's root; of its path only what lies in the volume matters.
        target = file.parent / file.parent.joinpath("..data").readlink() / file.name
        return target.read_text()
    except OSError:
        return ""


async def readiness_to_status(subject: Subject, pods: Pods, count: int, results: Results) -> None:
    await pods.create("flips", {"readinessProbe": PROBE})
    await pods.until("flips", Change.RUNNING)
    pid = await asyncio.to_thread(subject.container_pid, pods.container_id("flips"))
    file = Path(f"/proc/{pid}/root/tmp/ready")
    for number in range(2 * count):
        # Not always at the same moment of the probe's second.
        await asyncio.sleep(1.37)
        ready, changed = number % 2 == 0, time.perf_counter()
        await asyncio.to_thread(file.touch if ready else file.unlink)
        seen = await pods.until_ready_is("flips", ready, changed)
        results.add("readiness changed → in the status ms (probe each 1 s)", seen - changed, by_chance=True)
    await pods.delete("flips")
    await pods.until("flips", Change.GONE)
