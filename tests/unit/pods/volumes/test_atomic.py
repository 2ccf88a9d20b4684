import os
import stat
from pathlib import Path

import pytest

from agent.pods.volumes.atomic import write
from agent.pods.volumes.payload import PayloadFile


def files(**contents: str) -> dict[str, PayloadFile]:
    return {name: PayloadFile(text.encode(), 0o644) for name, text in contents.items()}


def visible(target: Path) -> set[str]:
    return {entry.name for entry in target.iterdir() if not entry.name.startswith("..")}


def versions(target: Path) -> set[str]:
    return {entry.name for entry in target.iterdir() if entry.name.startswith("..2")}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_users_see_links_through_the_data_link(tmp_path: Path) -> None:
    assert write(tmp_path, {"a": PayloadFile(b"1", 0o640), "d/e/f": PayloadFile(b"2", 0o400)})
    assert (tmp_path / "a").read_bytes() == b"1"
    assert (tmp_path / "d/e/f").read_bytes() == b"2"
    assert os.readlink(tmp_path / "a") == "..data/a"
    assert os.readlink(tmp_path / "d") == "..data/d"
    assert {os.readlink(tmp_path / "..data")} == versions(tmp_path)
    assert (mode(tmp_path / "a"), mode(tmp_path / "d/e/f"), mode(tmp_path / "d/e")) == (0o640, 0o400, 0o755)


def test_modes_hold_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write(tmp_path, {"d/a": PayloadFile(b"", 0o666)})
    finally:
        os.umask(before)
    assert (mode(tmp_path / "d/a"), mode(tmp_path / "d"), mode(tmp_path / "..data")) == (0o666, 0o755, 0o755)


def test_the_same_contents_are_not_written_again(tmp_path: Path) -> None:
    write(tmp_path, files(a="1"))
    before = os.readlink(tmp_path / "..data")
    assert not write(tmp_path, files(a="1"))
    assert os.readlink(tmp_path / "..data") == before


@pytest.mark.parametrize("second", [files(a="2"), files(a="1", b="2"), files(b="1"), {}])
def test_a_change_brings_a_new_version_and_prunes_the_old(tmp_path: Path, second: dict[str, PayloadFile]) -> None:
    write(tmp_path, files(a="1"))
    before = versions(tmp_path)
    assert write(tmp_path, second)
    assert visible(tmp_path) == set(second)
    assert len(versions(tmp_path)) == 1
    assert versions(tmp_path).isdisjoint(before)
    assert {name: (tmp_path / name).read_bytes() for name in second} == {n: f.data for n, f in second.items()}


def test_an_open_reader_keeps_the_version_it_opened(tmp_path: Path) -> None:
    write(tmp_path, files(a="old"))
    with (tmp_path / "a").open() as reader:
        write(tmp_path, files(a="new"))
        assert reader.read() == "old"


def test_a_lost_link_comes_back_without_a_rewrite(tmp_path: Path) -> None:
    write(tmp_path, files(a="1"))
    (tmp_path / "a").unlink()
    assert not write(tmp_path, files(a="1"))
    assert (tmp_path / "a").read_text() == "1"


def test_what_a_crash_left_behind_is_pruned_and_foreign_things_stay(tmp_path: Path) -> None:
    write(tmp_path, files(a="1"))
    (tmp_path / "..2020_01_01_00_00_00.1").mkdir()
    (tmp_path / "..data_tmp").symlink_to("nowhere")
    (tmp_path / "stale").symlink_to("..data/stale")
    (tmp_path / "nested").mkdir()
    assert write(tmp_path, files(a="2"))
    assert visible(tmp_path) == {"a", "nested"}
    assert len(versions(tmp_path)) == 1


def test_a_file_takes_the_place_of_an_empty_mount_point(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write(tmp_path, files(a="1"))
    assert (tmp_path / "a").read_text() == "1"


def test_a_data_link_that_points_elsewhere_is_replaced_unread(tmp_path: Path) -> None:
    (tmp_path / "..data").symlink_to("/etc")
    assert write(tmp_path, files(a="1"))
    assert (tmp_path / "a").read_text() == "1"


def test_the_group_owns_all_and_may_read(tmp_path: Path) -> None:
    write(tmp_path, {"d/a": PayloadFile(b"", 0o600, owner=os.getuid())}, group=os.getgid())
    assert mode(tmp_path / "d/a") == 0o640
    assert mode(tmp_path / "d") == stat.S_ISGID | 0o755
    assert mode(tmp_path / "..data") == stat.S_ISGID | 0o755
    assert {path.lstat().st_gid for path in tmp_path.rglob("*")} == {os.getgid()}


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../../x", "..data", "..x/y", ".", "n" * 256, "/".join(["ab"] * 2000)]
)
def test_a_path_that_leads_outside_is_refused_before_anything_is_written(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="invalid path"):
        write(tmp_path, {"fine": PayloadFile(b"", 0o644), path: PayloadFile(b"", 0o644)})
    assert list(tmp_path.iterdir()) == []


def test_a_file_below_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a/b lies below another file"):
        write(tmp_path, {"a": PayloadFile(b"", 0o644), "a/b": PayloadFile(b"", 0o644)})
