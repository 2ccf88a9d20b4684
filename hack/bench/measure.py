"""Measure one agent: its parts one after the other, each of which can be left out; and one round of bursts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

from hack.bench import changes, lives, rest, streams
from hack.bench.floor import MANY, REST_S
from hack.bench.pods import Change, Pods, pods_of
from hack.bench.results import Results
from hack.bench.subject import MemoryOverTime, Subject


class Part(StrEnum):
    COLD = "cold"
    ONE_BY_ONE = "one-by-one"
    CRASH = "crash"
    EXEC = "exec"
    LOGS = "logs"
    READINESS = "readiness"
    CONFIGMAP = "configmap"
    IDLE = "idle"
    BURSTS = "bursts"
    LIVES = "lives"


@dataclass(frozen=True, slots=True)
class Load:
    """How much of each."""

    parts: frozenset[Part] = frozenset(Part) - {Part.LIVES}
    starts: int = 3
    sequential: int = 20
    crashes: int = 5
    execs: int = 20
    logs: int = 5
    flips: int = 6
    changes: int = 2
    bursts: tuple[int, ...] = (10, 50, 100)
    rounds: int = 4
    idle_seconds: int = 60
    lives: int = 2000


QUICK = Load(frozenset(Part) - {Part.LIVES, Part.CONFIGMAP}, 1, 6, 2, 6, 2, 2, 1, (10,), 1, 20, 200)
SETTLE_S = 10.0
START_IS_OVER_S = 40.0
"""After it neither of them does any more what a start brings with it: looks at everything, late requests, tidying."""


def measure(subject: Subject, load: Load, results: Results, say: Callable[[str], None]) -> None:
    """All but the bursts. The agent must not run yet; it runs at the end. Raises DaemonError, TimeoutError."""
    with MemoryOverTime(subject.daemon, results.memory):
        if Part.COLD in load.parts:
            say("cold starts")
            rest.cold_start(subject, 0, load.starts, results)
        else:
            subject.start()
        asyncio.run(_with_pods(subject, load, results, say))


def measure_bursts(subject: Subject, load: Load, number: int, results: Results, say: Callable[[str], None]) -> None:
    """One burst of each size: round `number` of them. What else there is to see beside so many pods is in the last."""
    with MemoryOverTime(subject.daemon, results.memory):
        subject.start()
        asyncio.run(_bursts(subject, load, number, results, say))


async def _with_pods(subject: Subject, load: Load, results: Results, say: Callable[[str], None]) -> None:
    async with _warm_pods(subject) as pods:
        if Part.IDLE in load.parts:
            say("idle")
            await asyncio.sleep(SETTLE_S)
            await rest.idle(subject, 0, load.idle_seconds, results)
        for part, work in _singly(subject, pods, load, results):
            if part in load.parts:
                say(part)
                await work
            else:
                work.close()
        if Part.LIVES in load.parts:
            say(f"{load.lives} lives")
            await lives.many_lives(subject, pods, load.lives, results)


@asynccontextmanager
async def _warm_pods(subject: Subject) -> AsyncIterator[Pods]:
    """The first pod warms caches on every side and is in no figure."""
    async with pods_of(subject.plane, subject.node) as pods:
        await pods.create("warm")
        await pods.until("warm", Change.READY)
        await pods.delete("warm")
        await pods.until("warm", Change.GONE)
        yield pods


def _singly(
    subject: Subject, pods: Pods, load: Load, results: Results
) -> Iterable[tuple[Part, Coroutine[None, None, None]]]:
    yield Part.ONE_BY_ONE, lives.one_after_another(subject, pods, load.sequential, results)
    yield Part.CRASH, lives.crashes(subject, pods, load.crashes, results)
    yield Part.EXEC, streams.exec_round_trips(pods, load.execs, results)
    yield Part.LOGS, streams.log_throughput(pods, load.logs, results)
    yield Part.READINESS, changes.readiness_to_status(subject, pods, load.flips, results)
    yield Part.CONFIGMAP, changes.configmap_to_file(subject, pods, load.changes, results)


async def _bursts(subject: Subject, load: Load, number: int, results: Results, say: Callable[[str], None]) -> None:
    async with _warm_pods(subject) as pods:
        await asyncio.sleep(START_IS_OVER_S)
        last = number == load.rounds - 1
        for size in load.bursts:
            say(f"burst of {size}")
            names = await lives.burst(subject, pods, size, results, number)
            if last and size >= MANY:
                say(f"beside {size} pods")
                await _beside(subject, pods, size, load, results)
            if last and Part.COLD in load.parts and size == max(load.bursts):
                subject.daemon.stop()
                await asyncio.to_thread(rest.cold_start, subject, size, load.starts, results)
            await lives.end(pods, names, results)
            await asyncio.sleep(REST_S)


async def _beside(subject: Subject, pods: Pods, size: int, load: Load, results: Results) -> None:
    if Part.IDLE in load.parts:
        await rest.idle(subject, size, load.idle_seconds, results)
    if Part.ONE_BY_ONE in load.parts:
        await lives.one_after_another(subject, pods, load.sequential, results, size)
    if Part.CRASH in load.parts:
        await lives.crashes(subject, pods, load.crashes, results, size)
