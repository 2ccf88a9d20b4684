"""Folders of many pods are spread over the disk, where its file system can."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agent.pods.spread import TOP_OF_A_TREE, folder_flags, spread_folders, spread_runtime


def flags(folder: Path) -> int:
    opened = os.open(folder, os.O_RDONLY)
    try:
        return folder_flags(opened)
    finally:
        os.close(opened)


def file_system(path: Path) -> str:
    told = subprocess.run(["stat", "-f", "-c", "%T", path], check=True, capture_output=True, text=True)
    return told.stdout.strip()


def test_a_folder_on_ext4_is_marked_once_and_keeps_its_other_flags(tmp_path: Path) -> None:
    if not file_system(tmp_path).startswith("ext"):
        pytest.skip("no ext4 here")
    pods = tmp_path / "root" / "pods"
    spread_folders(pods, 0o750)
    marked = flags(pods)
    assert marked & TOP_OF_A_TREE
    assert pods.stat().st_mode & 0o777 == 0o750
    spread_folders(pods, 0o750)
    assert flags(pods) == marked
    (pods / "one").mkdir()
    assert not flags(pods / "one") & TOP_OF_A_TREE, "a pod's own files stay together"
    assert marked & ~TOP_OF_A_TREE == flags(pods / "one")


def test_containerds_folders_are_marked_before_its_first_pod(tmp_path: Path) -> None:
    if not file_system(tmp_path).startswith("ext"):
        pytest.skip("no ext4 here")
    images = tmp_path / "io.containerd.snapshotter.v1.overlayfs"
    (images / "snapshots").mkdir(parents=True)
    spread_runtime(images)
    found = {
        str(folder.relative_to(tmp_path)): oct(folder.stat().st_mode & 0o777)
        for folder in tmp_path.glob("*/*")
        if flags(folder) & TOP_OF_A_TREE
    }
    assert found == {
        "io.containerd.snapshotter.v1.overlayfs/snapshots": "0o755",
        "io.containerd.grpc.v1.cri/sandboxes": "0o755",
        "io.containerd.grpc.v1.cri/containers": "0o755",
        "io.containerd.runtime.v2.task/k8s.io": "0o711",
    }


def test_what_is_not_containerds_is_left_alone(tmp_path: Path) -> None:
    storage = tmp_path / "storage" / "overlay"
    storage.mkdir(parents=True)
    spread_runtime(storage)
    spread_runtime(tmp_path / "io.containerd.snapshotter.v1.gone")
    assert sorted(tmp_path.rglob("*")) == [storage.parent, storage]


def test_another_file_system_is_no_fault() -> None:
    spread_folders(Path("/dev/shm"), 0o755)
    assert file_system(Path("/dev/shm")) == "tmpfs"


def test_what_is_no_folder_stays_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "pods").write_text("a file")
    spread_folders(tmp_path / "pods", 0o750)
    spread_folders(tmp_path / "pods" / "below", 0o750)
    assert (tmp_path / "pods").read_text() == "a file"
