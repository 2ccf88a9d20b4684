"""The inhibitor lock and logind's word, over a real D-Bus of the test's own."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from loguru import logger

from agent.clock import SystemClock
from agent.node.logind import follow_logind
from agent.node.shutdown import Period, Shutdown
from tests.fakes.logind import HAS_DBUS, FakeLogind, system_bus
from tests.fakes.waiting import eventually

pytestmark = pytest.mark.skipif(not HAS_DBUS, reason="there is no dbus-daemon")
BY = (Period(0, 20), Period(2_000_000_000, 10))


class Machine:
    """Ends its pods when the test lets it."""

    def __init__(self) -> None:
        self.begun: list[Sequence[Period]] = []
        self.called_off = 0
        self.pods_end = asyncio.Event()

    async def begin(self, by: Sequence[Period], tell: Any) -> bool:
        self.begun.append(by)
        await self.pods_end.wait()
        return True

    def call_off(self) -> None:
        self.called_off += 1


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bus-") as folder:
        yield Path(folder)


@pytest.fixture
def bus(folder: Path) -> Iterator[tuple[str, FakeLogind]]:
    with system_bus(folder) as made:
        yield made


@asynccontextmanager
async def following(address: str, folder: Path) -> AsyncIterator[Machine]:
    machine = Machine()
    config = folder / "logind.conf.d" / "99-edgelet.conf"
    work = follow_logind(cast(Shutdown, machine), BY, SystemClock(), bus=address, config=config)
    life = asyncio.ensure_future(work)
    yield machine
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)


async def test_a_shutdown_waits_for_the_pods_and_no_longer(folder: Path, bus: tuple[str, FakeLogind]) -> None:
    address, logind = bus
    logind.delay_s = 60
    async with following(address, folder) as machine:
        await eventually(lambda: logind.locks_held == 1)
        assert logind.inhibits[0][0] == "shutdown"
        assert logind.inhibits[0][3] == "delay"
        logind.shutting_down(True)
        await eventually(lambda: machine.begun == [BY])
        assert logind.locks_held == 1
        machine.pods_end.set()
        await eventually(lambda: logind.locks_held == 0)
        assert logind.reloads == 0


async def test_a_shutdown_that_does_not_come_is_called_off_and_the_next_one_waits(
    folder: Path, bus: tuple[str, FakeLogind]
) -> None:
    address, logind = bus
    logind.delay_s = 60
    async with following(address, folder) as machine:
        await eventually(lambda: logind.locks_held == 1)
        machine.pods_end.set()
        logind.shutting_down(True)
        await eventually(lambda: logind.locks_held == 0)
        logind.shutting_down(False)
        await eventually(lambda: machine.called_off == 1)
        await eventually(lambda: logind.locks_held == 1)
        logind.shutting_down(True)
        await eventually(lambda: len(machine.begun) == 2)
    await eventually(lambda: logind.locks_held == 0)


async def test_logind_is_told_to_wait_for_as_long_as_the_pods_have(folder: Path, bus: tuple[str, FakeLogind]) -> None:
    address, logind = bus
    async with following(address, folder):
        await eventually(lambda: logind.locks_held == 1)
        assert (logind.reloads, logind.delay_s) == (1, 30)


async def test_without_a_bus_it_is_said_once_and_looked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.node.logind.RECONNECT_S", 0.01)
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(line), level="WARNING", format="{message}")
    try:
        async with following(f"unix:path={folder / 'bus'}", folder):
            await eventually(lambda: lines)
            with system_bus(folder) as (_, logind):
                logind.delay_s = 60
                await asyncio.wait_for(asyncio.to_thread(_held, logind), 20)
            await eventually(lambda: len(lines) > 1)
    finally:
        logger.remove(sink)
    assert lines[0].startswith("shutdowns of this machine do not wait for its pods")
    assert len(lines) <= 3  # no bus; the bus went; no bus again


def _held(logind: FakeLogind) -> None:
    import time

    while not logind.locks_held:
        time.sleep(0.01)
