"""Allocatable follows what other programs use, read from cgroups' files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from agent.config import Settings
from agent.errors import ConfigError
from agent.model.pod import Pod
from agent.node.live_capacity import LiveCapacity
from agent.stats.cgroups import Cgroups
from tests.fakes.clock import FakeClock
from tests.fakes.waiting import eventually
from tests.unit.node.eviction.uses import pod
from tests.unit.node.machine import FACTS, SETTINGS, FakeEvents

GIB = 2**30
PROVIDER = SimpleNamespace(cgroup=PurePosixPath("kubepods"))
USUAL = {"cpu": "4", "memory": "8Gi", "pods": "110"}


@dataclass
class Machine:
    """A version 2 hierarchy whose files a test writes."""

    folder: Path
    pods: list[Pod] = field(default_factory=list)
    events: FakeEvents = field(default_factory=FakeEvents)
    clock: FakeClock = field(default_factory=FakeClock)
    told: dict[str, str] = field(default_factory=dict)
    pokes: int = 0

    def __post_init__(self) -> None:
        (self.folder / "kubepods").mkdir()
        (self.folder / "cgroup.controllers").write_text("cpu memory")
        self.uses(GIB)

    def uses(self, others: int, pods: int = 0) -> None:
        """Bytes; what is inactive does not count."""
        lines = f"MemTotal: {64 * GIB // 1024} kB\nMemFree: {(64 * GIB - others - pods - GIB) // 1024} kB\n"
        (self.folder / "meminfo").write_text(lines)
        for folder, idle in ((self.folder, GIB), (self.folder / "kubepods", 0)):
            (folder / "memory.stat").write_text(f"inactive_file {idle}\n")
            (folder / "cpu.stat").write_text("usage_usec 0\n")
        (self.folder / "kubepods/memory.current").write_text(str(pods))

    def make(self, settings: Settings = SETTINGS, provider: Any = PROVIDER) -> LiveCapacity:
        def changed() -> None:
            self.pokes += 1

        facts = replace(FACTS, hugepages_bytes={})
        groups = Cgroups(self.folder, self.folder)
        return LiveCapacity(
            settings,
            facts,
            USUAL,
            provider,
            lambda: self.told,
            lambda: self.pods,
            self.events,
            self.clock,
            changed,
            groups,
        )

    @asynccontextmanager
    async def running(self, settings: Settings = SETTINGS) -> AsyncIterator[LiveCapacity]:
        live = self.make(settings)
        life = asyncio.create_task(live.run())
        try:
            yield live
        finally:
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)

    async def later(self, looks: int) -> None:
        for _ in range(looks):
            await eventually(lambda: self.clock.sleepers == 1)
            await self.clock.advance(10)
        await eventually(lambda: self.clock.sleepers == 1)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    # The reader's own time: ten seconds a look.
    monkeypatch.setattr(
        "agent.node.live_capacity.time", SimpleNamespace(monotonic_ns=lambda: int(made.clock.monotonic() * 1e9))
    )
    return made


async def test_a_program_that_takes_memory_makes_it_less_and_its_end_makes_it_whole(machine: Machine) -> None:
    machine.uses(0)
    async with machine.running() as live:
        await machine.later(10)
        assert live.under(USUAL) == USUAL
        machine.uses(3 * GIB, pods=2 * GIB)
        await machine.later(5)
        assert live.under(USUAL) == {**USUAL, "memory": f"{5 * 2**20}Ki"}
        assert live.under({**USUAL, "memory": "6Gi"})["memory"] == f"{3 * 2**20}Ki"
        machine.uses(0, pods=2 * GIB)
        await machine.later(10)
        assert live.under(USUAL) == USUAL
    assert [(kind, reason, message) for _, kind, reason, message in machine.events.recorded] == [
        (
            "Normal",
            "AllocatableChanged",
            f"Allocatable follows what other programs use: cpu 4 of 4, memory {size} of 8Gi",
        )
        for size in (f"{5 * 2**20}Ki", "8Gi")
    ]
    assert machine.pokes == 2


async def test_what_is_reserved_for_others_is_theirs_already(machine: Machine) -> None:
    machine.uses(3 * GIB)
    settings = replace(SETTINGS, system_reserved={"memory": "1Gi"}, kube_reserved={"memory": "1Gi"})
    async with machine.running(settings) as live:
        await machine.later(5)
        assert live.under(USUAL)["memory"] == f"{7 * 2**20}Ki"


async def test_cpu_is_what_the_machine_used_without_the_pods(machine: Machine) -> None:
    machine.uses(0)
    async with machine.running() as live:
        for seconds in range(0, 100, 10):
            (machine.folder / "cpu.stat").write_text(f"usage_usec {seconds * 2_500_000}\n")
            (machine.folder / "kubepods/cpu.stat").write_text(f"usage_usec {seconds * 1_000_000}\n")
            await machine.later(1)
        assert live.under(USUAL)["cpu"] == "2500m"


async def test_pods_that_are_here_keep_what_they_request(machine: Machine) -> None:
    machine.uses(7 * GIB)
    machine.pods = [pod("a", memory="4Gi"), pod("b", memory="2Gi"), pod("wrong", memory="?")]
    async with machine.running() as live:
        await machine.later(5)
        assert live.under(USUAL)["memory"] == f"{6 * 2**20}Ki"


async def test_a_restart_begins_with_what_was_told(machine: Machine) -> None:
    machine.told = {"memory": "5Gi", "cpu": "3500m"}
    machine.uses(3 * GIB)
    async with machine.running() as live:
        await machine.later(3)
        assert live.under(USUAL) == {**USUAL, "memory": f"{5 * 2**20}Ki", "cpu": "3500m"}
    assert machine.pokes == 0


async def test_while_the_pods_cgroup_is_not_known_nothing_changes(machine: Machine) -> None:
    (machine.folder / "kubepods/memory.current").unlink()
    async with machine.running() as live:
        await machine.later(5)
        assert live.under(USUAL) == USUAL


def test_a_provider_that_does_not_say_what_its_pods_use_is_refused(machine: Machine) -> None:
    with pytest.raises(ConfigError, match="--live-capacity: provider containerd does not say what its pods use"):
        machine.make(provider=None)
