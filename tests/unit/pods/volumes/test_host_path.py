import socket
from pathlib import Path

import pytest

from agent.pods.volumes.host_path import check


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("", "absent"),
        ("Directory", "dir"),
        ("DirectoryOrCreate", "dir"),
        ("File", "file"),
        ("FileOrCreate", "file"),
        ("Socket", "sock"),
        ("CharDevice", "/dev/null"),
    ],
)
def test_what_fits_its_type_passes(here: Path, kind: str, name: str) -> None:
    check(here / name, kind)


@pytest.mark.parametrize(
    ("kind", "name", "wanted"),
    [
        ("Directory", "file", "a directory"),
        ("Directory", "absent", "a directory"),
        ("DirectoryOrCreate", "file", "a directory"),
        ("File", "dir", "a file"),
        ("FileOrCreate", "dir", "a file"),
        ("Socket", "file", "a socket file"),
        ("CharDevice", "file", "a character device"),
        ("BlockDevice", "/dev/null", "a block device"),
    ],
)
def test_what_does_not_fit_is_named(here: Path, kind: str, name: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=f"hostPath type check failed: .* is not {wanted}$"):
        check(here / name, kind)


def test_or_create_makes_what_is_missing(here: Path) -> None:
    check(here / "new/deep", "DirectoryOrCreate")
    check(here / "new/file", "FileOrCreate")
    assert (here / "new/deep").is_dir()
    assert (here / "new/file").read_bytes() == b""
    with pytest.raises(FileNotFoundError):
        check(here / "no/such/file", "FileOrCreate")


def test_relative_paths_backsteps_and_unknown_types_are_refused(here: Path) -> None:
    with pytest.raises(ValueError, match="must be an absolute path"):
        check(Path("file"), "")
    with pytest.raises(ValueError, match="must not contain"):
        check(here / "../x", "")
    with pytest.raises(ValueError, match="Pipe is an invalid volume type"):
        check(here / "file", "Pipe")
