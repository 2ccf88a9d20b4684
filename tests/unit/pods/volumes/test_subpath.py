import os
from pathlib import Path

import pytest

from agent.pods.volumes.subpath import bind, open_beneath
from tests.unit.pods.volumes.fake_mounts import FakeMounts


def opened(volume: Path, sub_path: str) -> Path:
    fd = open_beneath(volume, sub_path)
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    volume = tmp_path / "volume"
    (volume / "a/b").mkdir(parents=True)
    (volume / "a/file").write_text("x")
    (tmp_path / "secret").write_text("host")
    return volume


def test_files_and_folders_are_found(volume: Path) -> None:
    assert opened(volume, "a/b/") == volume / "a/b"
    assert opened(volume, "a//./file") == volume / "a/file"


def test_a_missing_folder_is_made_with_the_volumes_mode(volume: Path) -> None:
    volume.chmod(0o2777)
    assert opened(volume, "new/deep") == volume / "new/deep"
    assert (volume / "new/deep").stat().st_mode & 0o7777 == 0o2777


def test_links_that_stay_inside_are_followed(volume: Path) -> None:
    (volume / "..data").symlink_to("a")
    (volume / "key").symlink_to("..data/file")
    (volume / "a/b/up").symlink_to("../../a/file")
    assert opened(volume, "key") == volume / "a/file"
    assert opened(volume, "a/b/up") == volume / "a/file"


@pytest.mark.parametrize("to", ["../secret", "/etc/passwd", "a/../../secret", "loop"])
def test_links_that_lead_outside_are_refused(volume: Path, to: str) -> None:
    (volume / "loop").symlink_to(to)
    with pytest.raises(ValueError, match="leads outside the volume"):
        open_beneath(volume, "loop")


@pytest.mark.parametrize("sub_path", ["/etc", "../secret", "a/../../secret"])
def test_paths_that_lead_outside_are_refused(volume: Path, sub_path: str) -> None:
    with pytest.raises(ValueError, match="must not"):
        open_beneath(volume, sub_path)


def test_no_descriptor_is_left_open(volume: Path) -> None:
    (volume / "out").symlink_to("../secret")
    before = len(os.listdir("/proc/self/fd"))
    for sub_path in ("a/b", "out", "a/file/x"):
        try:
            os.close(open_beneath(volume, sub_path))
        except (ValueError, OSError):
            continue
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_target_of_the_right_kind_is_made_and_bound(volume: Path, tmp_path: Path) -> None:
    mounts = FakeMounts()
    bind(volume, "a/file", tmp_path / "targets/0", mounts)
    bind(volume, "a/b", tmp_path / "targets/1", mounts)
    assert mounts.bound == {tmp_path / "targets/0": volume / "a/file", tmp_path / "targets/1": volume / "a/b"}
    assert (tmp_path / "targets/0").is_file()
    assert (tmp_path / "targets/1").is_dir()


def test_a_target_that_shows_the_right_thing_is_left_alone(volume: Path, tmp_path: Path) -> None:
    mounts = FakeMounts()
    os.link(volume / "a/file", tmp_path / "target")  # what a bind mount looks like to stat
    bind(volume, "a/file", tmp_path / "target", mounts)
    assert mounts.bound == {}


def test_a_target_that_shows_something_old_is_bound_anew(volume: Path, tmp_path: Path) -> None:
    mounts = FakeMounts()
    target = tmp_path / "target"
    bind(volume, "a/b", target, mounts)
    bind(volume, "a/file", target, mounts)
    assert mounts.bound == {target: volume / "a/file"}
    assert target.is_file()
