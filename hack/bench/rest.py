"""An agent with nothing to do: memory, CPU, requests and bytes; and how long it takes to be there again."""

import asyncio
import json
import time

from hack.bench.cost import usage_of
from hack.bench.lives import AUDIT_WAIT_S
from hack.bench.results import Results
from hack.bench.subject import Subject


async def idle(subject: Subject, pods: int, seconds: float, results: Results) -> None:
    counted, log = subject.traffic(), subject.log_end()
    await asyncio.to_thread(counted.start)
    before, begun = usage_of(subject.pid), time.perf_counter()
    await asyncio.sleep(seconds)
    after, passed = usage_of(subject.pid), time.perf_counter() - begun
    sent, received = await asyncio.to_thread(counted.stop)
    await asyncio.sleep(AUDIT_WAIT_S)
    title = f"idle with {pods} pods, "
    results.values[f"{title}RSS MiB"] = after.rss
    results.values[f"{title}PSS MiB"] = after.pss
    results.values[f"{title}CPU %"] = 100 * (after.cpu - before.cpu) / passed
    results.values[f"{title}API requests a minute"] = 60 * sum(subject.requests_since(log).values()) / passed
    results.values[f"{title}KiB to the API server a minute"] = 60 * sent / passed / 1024
    results.values[f"{title}KiB from the API server a minute"] = 60 * received / passed / 1024


def cold_start(subject: Subject, pods: int, times: int, results: Results) -> None:
    """From the start of the process to the Node's Ready. It must not run, and runs at the end; its pods run on."""
    for number in range(times):
        if number:
            subject.daemon.stop()
        if pods:
            _unknown(subject)
        else:
            subject.plane.kubectl("delete", "node", subject.node, "--ignore-not-found")
        results.add(f"start of the agent → Node Ready, {pods} pods ms", subject.start())


def _unknown(subject: Subject) -> None:
    """As the control plane sees a node that has been gone for a minute."""
    condition = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
    patch = json.dumps({"status": {"conditions": [condition]}})
    subject.plane.kubectl("patch", "node", subject.node, "--subresource=status", "--type=strategic", f"--patch={patch}")
