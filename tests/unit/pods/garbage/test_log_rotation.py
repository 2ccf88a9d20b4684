"""Logs on a real disk, written by a runtime that holds them open as containerd does."""

from __future__ import annotations

import gzip
import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest

from agent.errors import Permanent
from agent.pods.garbage.log_rotation import LogRotation, LogRules, RunningLog, compress

RULES = LogRules(max_bytes=100, max_files=3)
LINES = b"x" * 120


class Runtime:
    """Writes where a file was when it was opened, until it is told to open it again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refused: set[str] = set()
        self.open: dict[str, BinaryIO] = {}
        self.reopened: list[str] = []

    def log(self, container_id: str) -> RunningLog:
        return RunningLog(container_id, self.folder / container_id / "0.log")

    def start(self, container_id: str) -> RunningLog:
        log = self.log(container_id)
        log.path.parent.mkdir(exist_ok=True)
        self.open[container_id] = log.path.open("ab", buffering=0)
        return log

    def write(self, container_id: str, text: bytes) -> None:
        self.open[container_id].write(text)

    async def reopen_container_log(self, container_id: str) -> None:
        if container_id in self.refused:
            raise Permanent("", "container is not running")
        self.reopened.append(container_id)
        self.open[container_id].close()
        self.start(container_id)


class Wall:
    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, 0, 0)

    def __call__(self) -> datetime:
        self.now += timedelta(minutes=1)
        return self.now


def rotation(runtime: Runtime, *logs: RunningLog, rules: LogRules = RULES) -> LogRotation:
    return LogRotation(runtime, lambda: logs, rules, Wall())


def files(log: RunningLog) -> list[str]:
    return sorted(os.listdir(log.path.parent))


async def test_a_full_log_is_rotated_and_the_container_goes_on_in_a_new_file(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    full, small = runtime.start("full"), runtime.start("small")
    runtime.write("full", LINES)
    runtime.write("small", b"few")
    await rotation(runtime, full, small).look(RULES)
    runtime.write("full", b"next")
    assert files(full) == ["0.log", "0.log.20260301-120100"]
    assert full.path.read_bytes() == b"next"
    assert full.path.with_name("0.log.20260301-120100").read_bytes() == LINES
    assert files(small) == ["0.log"]
    assert runtime.reopened == ["full"]


async def test_older_files_are_compressed_and_no_more_stay_than_may(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    log = runtime.start("chatty")
    looks = rotation(runtime, log)
    for number in range(5):
        runtime.write("chatty", b"%d" % number * 120)
        await looks.look(RULES)
    assert files(log) == ["0.log", "0.log.20260301-120400.gz", "0.log.20260301-120500"]
    with gzip.open(log.path.with_name("0.log.20260301-120400.gz")) as archive:
        assert archive.read() == b"3" * 120


async def test_where_the_runtime_refuses_the_log_stays_where_it_is_looked_for(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    log = runtime.start("full")
    runtime.write("full", LINES)
    looks = rotation(runtime, log)
    runtime.refused.add("full")
    await looks.look(RULES)
    assert files(log) == ["0.log"]
    assert log.path.read_bytes() == LINES
    runtime.refused.clear()
    await looks.look(RULES)
    assert len(files(log)) == 2


async def test_a_log_that_somebody_removed_is_opened_again(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    log = runtime.start("robbed")
    log.path.unlink()
    await rotation(runtime, log).look(RULES)
    runtime.write("robbed", b"found")
    assert log.path.read_bytes() == b"found"


async def test_what_an_earlier_agent_left_unfinished_goes_at_the_first_look(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    log = runtime.start("left")
    for name in ("0.log.20260301-110000", "0.log.20260301-110000.tmp"):
        log.path.with_name(name).write_bytes(b"text")
    await rotation(runtime, log).look(RULES)
    assert files(log) == ["0.log", "0.log.20260301-110000"]


async def test_one_that_cannot_be_rotated_does_not_hold_up_another(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    first, second = runtime.start("first"), runtime.start("second")
    runtime.write("first", LINES)
    runtime.write("second", LINES)
    runtime.refused.add("first")
    await rotation(runtime, first, second).look(RULES)
    assert files(first) == ["0.log"]
    assert len(files(second)) == 2


async def test_a_short_disk_makes_files_smaller_and_fewer(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    log, small = runtime.start("chatty"), runtime.start("small")
    for second in range(3):
        log.path.with_name(f"0.log.20260301-11000{second}.gz").write_bytes(b"old")
        small.path.with_name(f"0.log.20260301-11000{second}.gz").write_bytes(b"old")
    runtime.write("chatty", b"y" * 50)
    runtime.write("small", b"y")
    await rotation(runtime, log, small).reclaim()
    assert files(log) == ["0.log", "0.log.20260301-120100"]
    assert files(small) == ["0.log", "0.log.20260301-110002.gz"]
    assert small.path.read_bytes() == b"y"


async def test_whoever_holds_logs_is_told_before_a_file_is_renamed_or_removed(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    log = runtime.start("chatty")
    told: list[tuple[Path, list[str]]] = []
    looks = LogRotation(runtime, lambda: [log], RULES, Wall(), lambda folder: told.append((folder, files(log))))
    runtime.write("chatty", LINES)
    await looks.look(RULES)
    await looks.reclaim()
    assert told == [
        (tmp_path, ["0.log"]),
        (tmp_path, ["0.log", "0.log.20260301-120100"]),
    ]


async def test_less_than_nothing_switches_it_off(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    log = runtime.start("free")
    runtime.write("free", LINES)
    off = rotation(runtime, log, rules=LogRules(max_bytes=-1))
    await off.run()  # returns
    await off.reclaim()
    assert files(log) == ["0.log"]


def test_an_archive_is_as_old_and_as_open_as_its_text_was(tmp_path: Path) -> None:
    path = tmp_path / "0.log.20260301-110000"
    path.write_bytes(LINES)
    path.chmod(0o640)
    os.utime(path, (1000, 1000))
    compress(path)
    packed = (tmp_path / "0.log.20260301-110000.gz").stat()
    assert (packed.st_mtime, packed.st_mode & 0o777) == (1000, 0o640)
    assert sorted(os.listdir(tmp_path)) == ["0.log.20260301-110000.gz"]


def test_a_disk_without_room_for_the_archive_keeps_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "0.log.20260301-110000"
    path.write_bytes(LINES)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space"):
        compress(path)
    assert os.listdir(tmp_path) == [path.name]


def test_a_log_that_went_with_its_container_is_nothing_to_compress(tmp_path: Path) -> None:
    compress(tmp_path / "0.log.20260301-110000")
    assert os.listdir(tmp_path) == []
