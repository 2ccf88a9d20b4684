import os
from pathlib import Path

import pytest

from agent.pods.volumes.removal import remove_tree


def test_a_tree_goes_with_everything_in_it(tmp_path: Path) -> None:
    top = tmp_path / "pod"
    (top / "a/b/c").mkdir(parents=True)
    (top / "a/b/c/file").touch()
    (top / "a/file").touch()
    (top / "d").mkdir()
    remove_tree(top)
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    top = tmp_path / "pod"
    (top / "in").mkdir(parents=True)
    (top / "in/folder").symlink_to(outside)
    (top / "file").symlink_to(outside / "precious")
    remove_tree(top)
    assert not top.exists()
    assert (outside / "precious").exists()


def test_depth_does_not_matter(tmp_path: Path) -> None:
    top = tmp_path / "pod"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(1200):  # beyond the recursion limit, the usual limit of open files and, in all, PATH_MAX
        os.mkdir("down", dir_fd=fd)
        deeper = os.open("down", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    remove_tree(top)
    assert not top.exists()


def test_a_tree_that_is_gone_is_no_error(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")


def test_a_link_in_place_of_the_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match="link"):
        remove_tree(tmp_path / "link")
    assert (tmp_path / "real").exists()
