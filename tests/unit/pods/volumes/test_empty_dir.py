import os
import stat
from pathlib import Path

from agent.pods.volumes.empty_dir import make_folder, make_private, make_tmpfs
from tests.unit.pods.volumes.fake_mounts import FakeMounts


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_empty_dir_is_open_to_everybody_inside_private_parents(tmp_path: Path) -> None:
    make_folder(tmp_path / "pods/u/v", None)
    assert mode(tmp_path / "pods/u/v") == 0o777
    assert (mode(tmp_path / "pods"), mode(tmp_path / "pods/u")) == (0o750, 0o750)


def test_a_group_owns_its_empty_dir_and_what_is_made_in_it(tmp_path: Path) -> None:
    make_folder(tmp_path / "v", os.getgid())
    assert mode(tmp_path / "v") == 0o2777
    assert (tmp_path / "v").stat().st_gid == os.getgid()


def test_a_folder_that_holds_data_is_not_touched_again(tmp_path: Path) -> None:
    make_folder(tmp_path / "v", None)
    (tmp_path / "v/data").touch()
    (tmp_path / "v").chmod(0o700)
    make_folder(tmp_path / "v", None)
    assert (tmp_path / "v/data").exists()
    assert mode(tmp_path / "v") == 0o700


def test_a_half_made_folder_is_made_again(tmp_path: Path) -> None:
    (tmp_path / ".v.new").mkdir()
    make_folder(tmp_path / "v", None)
    assert [entry.name for entry in tmp_path.iterdir()] == ["v"]


def test_a_tmpfs_is_mounted_once_with_size_mode_and_group(tmp_path: Path) -> None:
    mounts = FakeMounts()
    make_tmpfs(tmp_path / "v", 4096, os.getgid(), mounts)
    make_tmpfs(tmp_path / "v", 8192, os.getgid(), mounts)
    assert mounts.tmpfs_at == {tmp_path / "v": (4096, 0o3777, os.getgid())}


def test_private_parents_may_exist(tmp_path: Path) -> None:
    make_private(tmp_path / "a/b")
    make_private(tmp_path / "a/b")
    assert mode(tmp_path / "a/b") == 0o750
