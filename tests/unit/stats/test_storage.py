"""What pods wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.pods.logfiles import LogFiles
from agent.pods.volumes.layout import VolumePlugin, volume_dir
from agent.stats import disk
from agent.stats.storage import StorageReader
from tests.unit.pods.pods import make_pod
from tests.unit.stats.trees import write

POD = make_pod(volumes=[{"name": "cache", "emptyDir": {}}, {"name": "fast", "emptyDir": {"medium": "Memory"}}])


def test_logs_layers_and_empty_dirs_are_added_up(tmp_path: Path) -> None:
    write(tmp_path / "logs", {"shop_web_u-1/main/0.log": "hello\n", "shop_web_u-1/main/1.log": "again\n"})
    cache = volume_dir(tmp_path / "root", "u-1", VolumePlugin.EMPTY_DIR, "cache")
    write(cache, {"deep/file": "x" * 50_000})
    reader = StorageReader(tmp_path / "root", LogFiles(tmp_path / "logs", tmp_path / "links"))
    found = reader.read([POD], {"u-1": {"main": 7000}})["u-1"]
    assert found.logs == {"main": 12}
    assert found.written == {"main": 7000}
    assert found.volumes.keys() == {"cache"}
    assert 50_000 <= found.volumes["cache"] <= 80_000
    assert found.total == 12 + 7000 + found.volumes["cache"]


def test_a_folder_that_takes_long_to_walk_is_walked_the_more_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, walks = 100.0, 0

    def walk(_: Path) -> tuple[int, int]:
        nonlocal now, walks
        now, walks = now + 2.0, walks + 1
        return walks, 1

    monkeypatch.setattr(disk, "taken", walk)
    reader = StorageReader(tmp_path, LogFiles(tmp_path / "logs", tmp_path / "links"), lambda: now)
    assert reader.read([POD], {})["u-1"].volumes == {"cache": 1}
    now += 39
    assert reader.read([POD], {})["u-1"].volumes == {"cache": 1}
    now += 1
    assert reader.read([POD], {})["u-1"].volumes == {"cache": 2}
