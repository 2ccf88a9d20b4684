"""What is made on the host for mounts lives as long as a pod uses it, and nothing else is ever touched."""

from pathlib import Path

import pytest

from agent.pods.scripts.mountpoints import Mountpoints


@pytest.fixture
def made(tmp_path: Path) -> Mountpoints:
    for uid in ("one", "two"):
        (tmp_path / "root" / "pods" / uid).mkdir(parents=True)
    return Mountpoints(tmp_path / "root")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "host").mkdir()
    return tmp_path / "host"


def test_missing_folders_are_made_and_removed_with_their_parents(made: Mountpoints, host: Path) -> None:
    made.make("one", {str(host / "a" / "b"): True})
    assert (host / "a" / "b").is_dir()
    made.release("one")
    assert list(host.iterdir()) == []
    assert host.is_dir()
    made.release("one")


def test_a_files_place_is_an_empty_file(made: Mountpoints, host: Path) -> None:
    made.make("one", {str(host / "a" / "file"): False})
    assert (host / "a" / "file").read_bytes() == b""
    made.release("one")
    assert list(host.iterdir()) == []


def test_what_was_there_stays(made: Mountpoints, host: Path) -> None:
    (host / "there").mkdir()
    (host / "file").touch()
    made.make("one", {str(host / "there"): True, str(host / "file"): False})
    made.release("one")
    assert sorted(path.name for path in host.iterdir()) == ["file", "there"]


def test_what_somebody_filled_stays(made: Mountpoints, host: Path) -> None:
    made.make("one", {str(host / "a" / "b"): True, str(host / "file"): False})
    (host / "a" / "kept").touch()
    (host / "file").write_text("theirs")
    made.release("one")
    assert sorted(path.name for path in host.rglob("*")) == ["a", "file", "kept"]


@pytest.mark.parametrize(("first", "last"), [("one", "two"), ("two", "one")])
def test_a_place_that_two_pods_use_goes_with_the_last(made: Mountpoints, host: Path, first: str, last: str) -> None:
    for uid in ("one", "two", "one"):
        made.make(uid, {str(host / "a" / "b"): True})
    made.release(first)
    assert (host / "a" / "b").is_dir()
    made.release(last)
    assert list(host.iterdir()) == []


def test_another_agent_on_the_same_record_takes_it_away(made: Mountpoints, host: Path, tmp_path: Path) -> None:
    made.make("one", {str(host / "with\nnewline"): True})
    Mountpoints(tmp_path / "root").release("one")
    assert list(host.iterdir()) == []


def test_after_a_reboot_they_are_made_again(made: Mountpoints, host: Path) -> None:
    made.make("one", {str(host / "a"): True})
    (host / "a").rmdir()
    made.make("one", {str(host / "a"): True})
    assert (host / "a").is_dir()
    made.release("one")
    assert list(host.iterdir()) == []


def test_links_are_followed_as_the_runtime_follows_them(made: Mountpoints, host: Path) -> None:
    (host / "run").mkdir()
    (host / "var-run").symlink_to("run")
    made.make("one", {str(host / "var-run" / "secrets"): True})
    assert (host / "run" / "secrets").is_dir()
    made.release("one")
    assert list((host / "run").iterdir()) == []


def test_it_is_noted_before_it_is_made(made: Mountpoints, host: Path) -> None:
    (host / "file").touch()
    with pytest.raises(OSError, match="file"):
        made.make("one", {str(host / "file" / "below"): True})
    made.release("one")
    assert [path.name for path in host.iterdir()] == ["file"]


def test_a_pod_without_a_folder_has_nothing_to_release(made: Mountpoints) -> None:
    made.release("unknown")
