"""What folders take, and the interfaces of a namespace."""

from __future__ import annotations

import os
from pathlib import Path

from agent.stats.disk import file_system, folder, taken
from agent.stats.network import interfaces, main
from tests.unit.stats.trees import NET_DEV, write


def test_a_folder_takes_its_files_blocks_and_a_linked_file_once(tmp_path: Path) -> None:
    top = tmp_path / "top"
    empty, _ = taken_of_new(top)
    (top / "sub").mkdir()
    (top / "sub/file").write_bytes(os.urandom(100_000))
    os.link(top / "sub/file", top / "other-name")
    (top / "link").symlink_to("/etc")
    used, inodes = taken(top)
    assert 100_000 <= used - empty < 140_000
    assert inodes == 4


def taken_of_new(top: Path) -> tuple[int, int]:
    top.mkdir()
    return taken(top)


def test_a_folder_that_is_gone_has_no_figures(tmp_path: Path) -> None:
    assert taken(tmp_path / "gone") == (0, 0)
    assert folder(tmp_path / "gone") is None
    assert file_system(tmp_path / "gone") is None


def test_interfaces_without_loopback_and_the_ends_of_pods_links(tmp_path: Path) -> None:
    write(tmp_path, {"42/net/dev": NET_DEV})
    found = interfaces(42, tmp_path)
    assert [one.name for one in found] == ["eth0"]
    shown = main(found)
    assert shown is not None
    assert (shown.rx_bytes, shown.rx_packets, shown.rx_errors, shown.rx_dropped) == (1_000_000, 2000, 3, 4)
    assert (shown.tx_bytes, shown.tx_packets, shown.tx_errors, shown.tx_dropped) == (500_000, 1000, 5, 6)


def test_a_process_that_is_gone_has_no_interfaces(tmp_path: Path) -> None:
    assert interfaces(43, tmp_path) == ()
    assert main(()) is None
