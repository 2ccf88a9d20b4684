"""Measure one agent that is up and Ready: pods one after another, a crash, a burst, idleness.

Every time runs from the request (or the kill) to the watch event that shows its effect.
"""

import asyncio
import os
import signal
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, fields

from hack.bench.cost import Cost, cost_of
from hack.bench.pods import Change, Pods, pods_of
from hack.control_plane import ControlPlane
from hack.runtime import Containerd


@dataclass(frozen=True, slots=True)
class Load:
    """How much is measured; zero leaves a part out."""

    sequential: int = 20
    crashes: int = 5
    burst: int = 50
    idle_seconds: int = 60


@dataclass(slots=True)
class Figures:
    """Times in milliseconds unless named otherwise; None: not measured."""

    start_to_running_p50: float | None = None
    start_to_running_p90: float | None = None
    start_to_ready_p50: float | None = None
    delete_to_gone_p50: float | None = None
    delete_to_gone_p90: float | None = None
    crash_to_running_p50: float | None = None
    burst_all_ready_s: float | None = None
    burst_all_gone_s: float | None = None
    burst_cpu_s: float | None = None
    requests_per_burst_pod: float | None = None
    idle_rss_mib: float | None = None
    idle_pss_mib: float | None = None
    idle_cpu_percent: float | None = None
    idle_requests_per_minute: float | None = None

    @staticmethod
    def names() -> list[str]:
        return [field.name for field in fields(Figures)]


@dataclass(frozen=True, slots=True)
class Subject:
    """The agent under measurement."""

    node: str
    pid: int
    runtime: Containerd
    plane: ControlPlane


async def measure(subject: Subject, load: Load) -> Figures:
    figures = Figures()
    async with pods_of(subject.plane, subject.node) as pods:
        # The first pod warms caches on every side and is in no figure.
        await pods.create("warm")
        await pods.until("warm", Change.READY)
        await asyncio.sleep(1)
        if load.sequential:
            await _one_after_another(pods, load.sequential, figures)
        if load.crashes:
            await _crashes(subject, pods, load.crashes, figures)
        if load.burst:
            await _burst(subject, pods, load, figures)
        await pods.delete("warm")
        await pods.until("warm", Change.GONE)
    return figures


async def _one_after_another(pods: Pods, count: int, figures: Figures) -> None:
    running, ready, gone = [], [], []
    for name in (f"sequential-{number}" for number in range(count)):
        sent = await pods.create(name)
        running.append(await pods.until(name, Change.RUNNING) - sent)
        ready.append(await pods.until(name, Change.READY) - sent)
        await asyncio.sleep(0.3)
        sent = await pods.delete(name)
        gone.append(await pods.until(name, Change.GONE) - sent)
        await asyncio.sleep(0.2)
    figures.start_to_running_p50, figures.start_to_running_p90 = _median(running), _ninetieth(running)
    figures.start_to_ready_p50 = _median(ready)
    figures.delete_to_gone_p50, figures.delete_to_gone_p90 = _median(gone), _ninetieth(gone)


async def _crashes(subject: Subject, pods: Pods, count: int, figures: Figures) -> None:
    restarted = []
    for name in (f"crash-{number}" for number in range(count)):
        await pods.create(name)
        await pods.until(name, Change.READY)
        await asyncio.sleep(1)
        tasks = (await asyncio.to_thread(subject.runtime.ctr, "task", "ls")).splitlines()
        [pid] = [int(task.split()[1]) for task in tasks if task.startswith(pods.container_id(name))]
        killed = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        restarted.append(await pods.until(name, Change.RUNNING, restarts=1) - killed)
        await pods.delete(name)
        await pods.until(name, Change.GONE)
    figures.crash_to_running_p50 = _median(restarted)


async def _burst(subject: Subject, pods: Pods, load: Load, figures: Figures) -> None:
    names = [f"burst-{number}" for number in range(load.burst)]
    before, begun = await _cost(subject), time.perf_counter()
    await asyncio.gather(*(pods.create(name) for name in names))
    ready = await asyncio.gather(*(pods.until(name, Change.READY) for name in names))
    figures.burst_all_ready_s = max(ready) - begun
    if load.idle_seconds:
        await asyncio.sleep(15)  # until late events and collections are over
    else:
        await asyncio.sleep(2)  # until the audit log is written
    after = await _cost(subject)
    figures.burst_cpu_s = after.cpu - before.cpu
    figures.requests_per_burst_pod = (after.requests - before.requests) / load.burst
    if load.idle_seconds:
        await _idle(subject, load.idle_seconds, figures)
    begun = time.perf_counter()
    await asyncio.gather(*(pods.delete(name) for name in names))
    gone = await asyncio.gather(*(pods.until(name, Change.GONE) for name in names))
    figures.burst_all_gone_s = max(gone) - begun


async def _idle(subject: Subject, seconds: int, figures: Figures) -> None:
    before, begun = await _cost(subject), time.perf_counter()
    await asyncio.sleep(seconds)
    after, passed = await _cost(subject), time.perf_counter() - begun
    figures.idle_rss_mib, figures.idle_pss_mib = after.rss, after.pss
    figures.idle_cpu_percent = 100 * (after.cpu - before.cpu) / passed
    figures.idle_requests_per_minute = 60 * (after.requests - before.requests) / passed


async def _cost(subject: Subject) -> Cost:
    return await asyncio.to_thread(cost_of, subject.pid, subject.node, subject.plane.audit_log)


def _median(seconds: Iterable[float]) -> float:
    return 1000 * statistics.median(seconds)


def _ninetieth(seconds: Iterable[float]) -> float:
    ordered = sorted(seconds)
    return 1000 * ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
