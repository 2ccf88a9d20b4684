"""The manager looks, shows, frees and evicts, one pod at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from msgspec.structs import replace

from agent.config import Settings
from agent.model.objects import ObjectReference
from agent.model.pod import Pod
from agent.node.eviction.manager import EvictionManager
from agent.node.eviction.ports import Eviction
from agent.node.eviction.reading import SignalReader
from agent.node.eviction.signals import Observation, Resource, Signal
from agent.node.eviction.wake import MemoryAlarm
from agent.node.pressure import NodePressure, Pressure
from agent.stats.cgroups import Cgroups
from agent.stats.figures import PodFigures
from agent.stats.storage import LocalStorage
from tests.fakes.clock import FakeClock
from tests.fakes.waiting import eventually
from tests.unit.node.eviction.uses import MIB, figures, pod
from tests.unit.node.machine import FACTS
from tests.unit.pods.pods import make_pod

SETTINGS = Settings(
    "edge-1",
    eviction_hard={"memory.available": "100Mi", "nodefs.available": "10%"},
    eviction_soft={"memory.available": "300Mi"},
    eviction_soft_grace_period={"memory.available": 60.0},
)
PODS = PurePosixPath("kubepods")
PLENTY = {Signal.MEMORY: Observation(1000 * MIB, 1000 * MIB), Signal.NODE_FS: Observation(50, 100)}


class Machine(SignalReader):
    """Readings that a test sets."""

    def __init__(self, folder: Path) -> None:
        super().__init__(FACTS, folder, Cgroups(folder))
        self.now = dict(PLENTY)

    def read(self, image_dir: Path | None, pods: PurePosixPath | None) -> dict[Signal, Observation]:
        return dict(self.now)

    def has(self, signal: Signal, available: int) -> None:
        self.now[signal] = replace(PLENTY[signal], available=available)


@dataclass
class Pods:
    machine: Machine
    here: list[Pod] = field(default_factory=list)
    uses: dict[str, PodFigures] = field(default_factory=dict)
    wrote: dict[str, LocalStorage] = field(default_factory=dict)
    evicted: dict[str, Eviction] = field(default_factory=dict)
    stuck: bool = False
    frees: int = 0
    """What reclaiming makes of the disk."""
    reclaimed: int = 0
    asked: list[Resource] = field(default_factory=list)
    asked_for: list[str] = field(default_factory=list)

    cgroup: PurePosixPath | None = PODS

    async def image_dir(self) -> Path | None:
        return None

    def active(self) -> Sequence[Pod]:
        return [one for one in self.here if one.uid not in self.evicted]

    async def figures(self, resource: Resource) -> Mapping[str, PodFigures]:
        self.asked.append(resource)
        return self.uses

    async def storage(self, pods: Sequence[Pod]) -> Mapping[str, LocalStorage]:
        self.asked_for += [one.uid for one in pods]
        return self.wrote

    def evict(self, uid: str, eviction: Eviction) -> None:
        self.evicted[uid] = eviction

    def is_down(self, uid: str) -> bool:
        return not self.stuck

    async def reclaim(self) -> None:
        self.reclaimed += 1
        if self.frees:
            self.machine.has(Signal.NODE_FS, self.frees)


@dataclass
class Events:
    told: list[tuple[str, str, str]] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)

    def record(
        self, about: ObjectReference, kind: str, reason: str, message: str, annotations: Mapping[str, str] | None = None
    ) -> None:
        assert kind == "Warning"
        self.told.append((about.name, reason, message))
        self.annotations |= annotations or {}


@dataclass
class Lab:
    machine: Machine
    pods: Pods
    clock: FakeClock
    events: Events = field(default_factory=Events)
    pressure: NodePressure = field(default_factory=NodePressure)
    evicts: bool = True
    manager: EvictionManager = field(init=False)

    async def later(self, seconds: float) -> None:
        """Pass the time in steps: each look goes through threads, whose end is waited for."""
        for _ in range(int(seconds)):
            await eventually(self._at_rest)
            await self.clock.advance(1)
        await eventually(self._at_rest)

    def _at_rest(self) -> bool:
        """Both who watches the machine and who watches the pods' limits wait for time to pass."""
        return self.clock.sleepers == 1 + self.evicts


@asynccontextmanager
async def lab(folder: Path, settings: Settings = SETTINGS, *, evicts: bool = True) -> AsyncIterator[Lab]:
    machine = Machine(folder)
    made = Lab(machine, Pods(machine), FakeClock(), evicts=evicts)
    settings = replace(settings, root_dir=folder)
    manager = EvictionManager(
        settings,
        machine,
        made.pressure,
        made.events,
        made.clock,
        made.pods if evicts else None,
        alarm=lambda wake: MemoryAlarm(wake, folder, folder),
    )
    made.manager = manager
    life = asyncio.create_task(manager.run())
    try:
        yield made
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


async def test_a_roomy_machine_costs_no_pod_and_reads_none(tmp_path: Path) -> None:
    async with lab(tmp_path) as made:
        made.pods.here = [pod("web")]
        await made.later(30)
        assert (made.pods.evicted, made.pods.asked, made.pods.asked_for) == ({}, [], [])
        assert made.pressure.now == Pressure()


async def test_the_greediest_pod_goes_at_once_and_alone(tmp_path: Path) -> None:
    async with lab(tmp_path) as made:
        made.pods.here = [pod("kept", memory="1Gi"), pod("eater"), pod("small")]
        made.pods.uses = {
            name: figures(name, memory=size) for name, size in (("kept", 500), ("eater", 90), ("small", 1))
        }
        made.pods.stuck = True
        made.machine.has(Signal.MEMORY, 64 * MIB)
        await made.later(20)
        (eviction,) = made.pods.evicted.values()
        assert list(made.pods.evicted) == ["eater"]
        assert eviction.grace_s == 1
        assert eviction.message.startswith("The node was low on resource: memory. Threshold quantity: 100Mi, ")
        assert eviction.disruption == eviction.message
        assert made.pressure.now == Pressure(memory=True)
        assert made.events.told[:2] == [
            ("edge-1", "EvictionThresholdMet", "Attempting to reclaim memory"),
            ("eater", "Evicted", eviction.message),
        ]
        assert made.events.annotations["offending_containers"] == "main"
        assert made.pods.asked == [Resource.MEMORY]
        made.pods.stuck = False
        made.machine.has(Signal.MEMORY, 900 * MIB)
        await made.later(280)
        assert made.pressure.now == Pressure(memory=True)
        await made.later(50)
        assert made.pressure.now == Pressure()
        assert list(made.pods.evicted) == ["eater"]


async def test_the_next_one_goes_once_the_first_is_down_and_it_was_not_enough(tmp_path: Path) -> None:
    async with lab(tmp_path) as made:
        made.pods.here = [pod("a"), pod("b")]
        made.machine.has(Signal.MEMORY, 0)
        await made.later(5)
        assert set(made.pods.evicted) == {"a", "b"}


async def test_critical_pods_stay(tmp_path: Path) -> None:
    async with lab(tmp_path) as made:
        made.pods.here = [pod("system", priority=2_000_000_000), pod("user")]
        made.machine.has(Signal.MEMORY, 0)
        await made.later(25)
        assert set(made.pods.evicted) == {"user"}


async def test_a_soft_threshold_waits_and_gives_time_to_end(tmp_path: Path) -> None:
    for most, expected in ((10, 10), (100, 30), (-1, 30), (0, 0)):
        async with lab(tmp_path, replace(SETTINGS, eviction_max_pod_grace_period=most)) as made:
            made.pods.here = [make_pod({"name": "p", "uid": "p"}, terminationGracePeriodSeconds=30)]
            made.machine.has(Signal.MEMORY, 200 * MIB)
            await made.later(40)
            assert made.pods.evicted == {}
            assert made.pressure.now == Pressure(memory=True)
            await made.later(40)
            assert made.pods.evicted["p"].grace_s == expected


async def test_a_full_disk_is_freed_before_a_pod_has_to_go(tmp_path: Path) -> None:
    async with lab(tmp_path) as made:
        made.pods.here = [pod("web")]
        made.pods.frees = 40
        made.machine.has(Signal.NODE_FS, 5)
        await made.later(30)
        assert (made.pods.reclaimed, made.pods.evicted) == (1, {})
        assert made.pressure.now == Pressure(disk=True)


async def test_where_freeing_does_not_do_the_greatest_writer_goes(tmp_path: Path) -> None:
    async with lab(tmp_path) as made:
        made.pods.here = [pod("a"), pod("writer")]
        made.pods.uses = {"a": figures("a", volume=1), "writer": figures("writer", volume=1000)}
        made.pods.stuck = True
        made.machine.has(Signal.NODE_FS, 5)
        await made.later(12)
        assert list(made.pods.evicted) == ["writer"]
        assert made.pods.asked == [Resource.DISK]


async def test_a_pod_over_its_own_limit_goes_without_any_pressure_and_others_are_not_read(tmp_path: Path) -> None:
    limited = make_pod({"name": "full", "uid": "full"}, volumes=[{"name": "cache", "emptyDir": {"sizeLimit": "1Mi"}}])
    async with lab(tmp_path) as made:
        made.pods.here = [pod("web"), limited]
        made.pods.wrote = {"full": LocalStorage(volumes={"cache": 2 * MIB})}
        await made.later(15)
        eviction = made.pods.evicted["full"]
        assert eviction == Eviction('Usage of EmptyDir volume "cache" exceeds the limit "1Mi". ', 1)
        assert made.pressure.now == Pressure()
        assert set(made.pods.asked_for) == {"full"}
        assert [reason for _, reason, _ in made.events.told] == ["Evicted"]


async def test_an_end_that_takes_too_long_holds_nobody_up_for_ever(tmp_path: Path) -> None:
    async with lab(tmp_path) as made:
        made.pods.here = [pod("a"), pod("b")]
        made.pods.stuck = True
        made.machine.has(Signal.MEMORY, 0)
        await made.later(25)
        assert len(made.pods.evicted) == 1
        await made.later(10)
        assert len(made.pods.evicted) == 2


async def test_another_providers_node_shows_its_pressure(tmp_path: Path) -> None:
    async with lab(tmp_path, evicts=False) as made:
        made.machine.has(Signal.NODE_FS, 5)
        await made.later(12)
        assert made.pressure.now == Pressure(disk=True)
        assert made.events.told == []


async def test_other_thresholds_hold_at_once(tmp_path: Path) -> None:
    async with lab(tmp_path) as made:
        made.pods.here = [pod("eater")]
        made.machine.has(Signal.MEMORY, 400 * MIB)
        await made.later(20)
        assert made.pods.evicted == {}
        made.manager.use(replace(SETTINGS, root_dir=tmp_path, eviction_hard={"memory.available": "500Mi"}))
        await made.later(1)
        assert list(made.pods.evicted) == ["eater"]
        assert made.pressure.now == Pressure(memory=True)
        made.manager.use(replace(SETTINGS, root_dir=tmp_path))
        await made.later(SETTINGS.eviction_pressure_transition_period + 20)
        assert made.pressure.now == Pressure()
