"""Pods' lives: one after another, crashes, bursts, and so many that what leaks would show.

Every time runs from the request (or the kill) to the watch event that shows its effect.
"""

import asyncio
import os
import signal
import time

from hack.bench.cost import usage_of
from hack.bench.floor import BURST_NAME, beside_pods
from hack.bench.pods import Change, Pods
from hack.bench.results import Results, percentile
from hack.bench.subject import Subject

AUDIT_WAIT_S = 2.0
"""Until the audit log is written."""
LATE_S = 15.0
"""Until late events and collections are over."""
LIVES_AT_ONCE = 20
NOT_A_PODS = ("leases", "nodes", "nodes/status", "csinodes")


async def one_after_another(subject: Subject, pods: Pods, count: int, results: Results, beside: int = 0) -> None:
    """`beside`: so many pods run already."""
    title = beside_pods(beside)
    before = subject.log_end()
    gone = []
    for name in (f"sequential-{number}" for number in range(count)):
        sent = await pods.create(name)
        results.add(f"{title}start → Running ms", await pods.until(name, Change.RUNNING) - sent)
        results.add(f"{title}start → Ready ms", await pods.until(name, Change.READY) - sent)
        await asyncio.sleep(0.3)
        sent = await pods.delete(name)
        gone.append(await pods.until(name, Change.GONE) - sent)
        await asyncio.sleep(0.2)
    for seconds in gone:
        results.add(f"{title}delete → gone ms", seconds)
    if beside:
        return
    results.values["start → Running, 90th percentile ms"] = percentile(results.times["start → Running ms"], 0.9)
    results.values["delete → gone, 90th percentile ms"] = percentile(results.times["delete → gone ms"], 0.9)
    await asyncio.sleep(AUDIT_WAIT_S)
    asked = subject.requests_since(before)
    results.kinds = {kind: n / count for kind, n in asked.items() if kind.split()[1] not in NOT_A_PODS}
    results.values["API requests a pod's life"] = sum(results.kinds.values())


async def crashes(subject: Subject, pods: Pods, count: int, results: Results, beside: int = 0) -> None:
    for name in (f"crash-{number}" for number in range(count)):
        await pods.create(name)
        await pods.until(name, Change.READY)
        await asyncio.sleep(1)
        pid = await asyncio.to_thread(subject.container_pid, pods.container_id(name))
        killed = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        restarted = await pods.until(name, Change.RUNNING, restarts=1)
        results.add(f"{beside_pods(beside)}crash → restarted and Running ms", restarted - killed)
        await pods.delete(name)
        await pods.until(name, Change.GONE)


async def burst(subject: Subject, pods: Pods, size: int, results: Results, number: int = 0) -> list[str]:
    """The names of its pods, which run on; `number` says which burst of this size it is."""
    names = [f"burst-{size}-{number}-{pod}" for pod in range(size)]
    log, cpu, begun = subject.log_end(), usage_of(subject.pid).cpu, time.perf_counter()
    await asyncio.gather(*(pods.create(name) for name in names))
    ready = await asyncio.gather(*(pods.until(name, Change.READY) for name in names))
    results.sample(BURST_NAME.format(size), max(ready) - begun)
    await asyncio.sleep(LATE_S)
    used = await asyncio.to_thread(usage_of, subject.pid)
    results.sample(f"burst of {size}, CPU of the agent s", used.cpu - cpu)
    asked = subject.requests_since(log)
    own = sum(count for kind, count in asked.items() if kind.split()[1] not in NOT_A_PODS)
    results.sample(f"burst of {size}, API requests a pod's start", own / size)
    return names


async def end(pods: Pods, names: list[str], results: Results | None = None) -> None:
    begun = time.perf_counter()
    await asyncio.gather(*(pods.delete(name) for name in names))
    gone = await asyncio.gather(*(pods.until(name, Change.GONE) for name in names))
    if results is not None:
        results.sample(f"burst of {len(names)}, all deleted → gone s", max(gone) - begun)


async def many_lives(subject: Subject, pods: Pods, count: int, results: Results) -> None:
    """What `count` pods leave in the agent's memory; after the first tenth its pools are as large as they get."""
    done = 0
    for part in (count // 10, count):
        while done < part:
            names = [f"life-{done + number}" for number in range(LIVES_AT_ONCE)]
            await asyncio.gather(*(pods.create(name) for name in names))
            await asyncio.gather(*(pods.until(name, Change.READY) for name in names))
            await end(pods, names)
            done += len(names)
        await asyncio.sleep(4 * LATE_S)
        used = await asyncio.to_thread(usage_of, subject.pid)
        results.values[f"RSS after {done} pods' lives MiB"] = used.rss
