from dataclasses import replace
from pathlib import Path

import pytest

from agent.node.pressure import FileSystem, Pressure, Signals, SteadyPressure, pressure, read_signals

FINE = Signals(2**30, FileSystem(0.5, 0.5), FileSystem(0.5, 0.5), 0.9)


def test_a_roomy_machine_is_under_no_pressure() -> None:
    assert pressure(FINE) == Pressure()


@pytest.mark.parametrize(
    ("signals", "expected"),
    [
        (replace(FINE, memory_available_bytes=100 * 2**20 - 1), Pressure(memory=True)),
        (replace(FINE, memory_available_bytes=100 * 2**20), Pressure()),
        (replace(FINE, node_fs=FileSystem(0.099, 0.5)), Pressure(disk=True)),
        (replace(FINE, node_fs=FileSystem(0.5, 0.049)), Pressure(disk=True)),
        (replace(FINE, image_fs=FileSystem(0.149, 0.5)), Pressure(disk=True)),
        (replace(FINE, image_fs=FileSystem(0.15, 0.5)), Pressure()),
        (replace(FINE, pids_available=0.01), Pressure(pids=True)),
    ],
)
def test_each_signal_has_its_threshold(signals: Signals, expected: Pressure) -> None:
    assert pressure(signals) == expected


def test_pressure_is_over_only_five_minutes_after_it_was_last_seen() -> None:
    steady = SteadyPressure()
    assert steady.after(Pressure(), 0.0) == Pressure()
    assert steady.after(Pressure(disk=True), 10.0) == Pressure(disk=True)
    assert steady.after(Pressure(memory=True), 200.0) == Pressure(disk=True, memory=True)
    assert steady.after(Pressure(), 310.0) == Pressure(memory=True)
    assert steady.after(Pressure(), 500.0) == Pressure()


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    signals = read_signals(tmp_path, tmp_path / "none", 32768)
    assert signals.memory_available_bytes > 0
    assert 0 <= signals.node_fs.available <= 1
    assert signals.pids_available < 1
