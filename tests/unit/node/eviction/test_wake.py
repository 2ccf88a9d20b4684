"""The kernel's alarms, on files and descriptors of a test's own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path, PurePosixPath

from agent.node.eviction.wake import STALLED, MemoryAlarm
from tests.fakes.waiting import eventually
from tests.unit.stats.trees import write

PODS = PurePosixPath("kubepods")


async def test_version_1_is_asked_to_ring_at_a_number_of_bytes(tmp_path: Path) -> None:
    group = "memory/kubepods"
    write(tmp_path / "cgroup", {f"{group}/memory.usage_in_bytes": "1\n", f"{group}/cgroup.event_control": ""})
    rung = asyncio.Event()
    alarm = MemoryAlarm(rung.set, tmp_path / "cgroup", tmp_path / "proc")
    alarm.open()
    try:
        alarm.at({PODS: 1000})
        control = tmp_path / "cgroup" / group / "cgroup.event_control"
        event, _, level = control.read_text().split()
        assert level == "1000"
        os.eventfd_write(int(event), 1)
        await eventually(rung.is_set)
        alarm.at({PODS: 1000})
        assert control.read_text().split()[0] == event
        alarm.at({PODS: 2000})
        assert control.read_text().split()[2] == "2000"
    finally:
        alarm.close()


async def test_a_kernel_that_tells_nothing_is_no_failure(tmp_path: Path) -> None:
    for controllers in ({}, {"cgroup.controllers": "memory\n"}):
        write(tmp_path / "cgroup", controllers)
        alarm = MemoryAlarm(lambda: None, tmp_path / "cgroup", tmp_path / "proc")
        alarm.open()
        alarm.at({PODS: 1000, PurePosixPath(): 1})
        alarm.close()


def test_the_trigger_ends_with_the_byte_that_the_kernel_writes_over() -> None:
    assert STALLED.endswith(b"\0")
