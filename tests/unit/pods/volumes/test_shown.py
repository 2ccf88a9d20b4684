import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.pods.volumes import shown
from agent.pods.volumes.shown import mount_remote, show_local
from agent.pods.volumes.steps import MountRemote, Ownership, ShowLocal
from tests.unit.pods.volumes.fake_mounts import FakeMounts

REFUSED = """mount failed: exit status 32
Mounting command: mount
Mounting arguments: -t nfs -o vers=4.1 srv:/x {path}
Output: mount.nfs: access denied
"""


class Machine:
    """Commands as the machine would run them: remembers them, mounts into `mounts`, fails where told."""

    def __init__(self, mounts: FakeMounts) -> None:
        self.mounts = mounts
        self.ran: list[str] = []
        self.answers: dict[str, tuple[int, str]] = {}

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        self.ran.append(" ".join(command))
        answer = self.answers.get(command[0], (0, ""))
        if command[0] == "mount" and answer[0] == 0:
            self.mounts.bound[Path(command[-1])] = Path(command[-2])
        return answer


@pytest.fixture
def machine() -> Machine:
    return Machine(FakeMounts())


def local(tmp_path: Path, source: Path | None = None, **fields: object) -> ShowLocal:
    where = source or tmp_path / "disk"
    where.mkdir(exist_ok=True)
    known = {"options": (), "read_only": False, "ownership": None, "fs_type": "ext4", **fields}
    return ShowLocal("v", tmp_path / "pods/u/v", where, **known)  # type: ignore[arg-type]


def remote(tmp_path: Path) -> MountRemote:
    return MountRemote("v", tmp_path / "pods/u/v", "srv:/x", "nfs", ("vers=4.1",))


def test_a_local_folder_is_bound_once(tmp_path: Path, machine: Machine) -> None:
    step = local(tmp_path)
    show_local(step, machine.mounts, machine)
    show_local(step, machine.mounts, machine)
    assert machine.ran == [f"mount -o bind {step.source} {step.path}"]


def test_read_only_is_of_the_mount_and_not_of_the_disk(tmp_path: Path, machine: Machine) -> None:
    step = local(tmp_path, read_only=True, options=("noexec",))
    show_local(step, machine.mounts, machine)
    assert machine.ran == [
        f"mount -o bind,noexec {step.source} {step.path}",
        f"mount -o bind,remount,noexec,ro {step.source} {step.path}",
    ]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (Path("/srv/../etc"), ValueError, r"invalid path: /srv/\.\./etc must not contain '\.\.'"),
        (Path("/dev/null"), ValueError, "only directory and block device are supported"),
        (Path("/no/such/disk"), OSError, 'path "/no/such/disk" does not exist'),
    ],
)
def test_what_is_no_local_volume_is_told(
    tmp_path: Path, machine: Machine, source: Path, error: type[Exception], message: str
) -> None:
    step = ShowLocal("v", tmp_path / "v", source, "ext4", (), False, None)
    with pytest.raises(error, match=message):
        show_local(step, machine.mounts, machine)
    assert machine.ran == []


def test_a_volume_whose_group_cannot_be_set_is_taken_back(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(shown, "own", full)
    step = local(tmp_path, ownership=Ownership(7, on_root_mismatch=False))
    with pytest.raises(OSError, match="Read-only"):
        show_local(step, machine.mounts, machine)
    assert (machine.mounts.bound, step.path.exists()) == ({}, False)


@pytest.mark.parametrize(
    ("probed", "fs_type", "ran"),
    [
        ((2, ""), "ext4", ["mkfs.ext4 -F -m0 {d}", "mount -t ext4 -o defaults {d} {p}"]),
        ((2, ""), "xfs", ["mkfs.xfs -f {d}", "mount -t xfs -o defaults {d} {p}"]),
        ((0, "TYPE=ext4"), "ext4", ["mount -t ext4 -o defaults {d} {p}"]),
    ],
)
def test_a_block_device_is_formatted_only_where_it_is_empty(
    tmp_path: Path,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    probed: tuple[int, str],
    fs_type: str,
    ran: list[str],
) -> None:
    monkeypatch.setattr(stat, "S_ISBLK", lambda mode: True)
    machine.answers["blkid"] = probed
    step = local(tmp_path, fs_type=fs_type)
    show_local(step, machine.mounts, machine)
    assert machine.ran[0].startswith("blkid ")
    assert machine.ran[1:] == [line.format(d=step.source, p=step.path) for line in ran]


@pytest.mark.parametrize(
    ("probed", "read_only", "message"),
    [
        ((2, ""), True, "cannot mount unformatted disk .*/disk as we are manipulating it in read-only mode"),
        ((0, "PTTYPE=gpt"), False, "failed to get disk format of disk .*: it has a partition table"),
        ((4, "usage"), False, "failed to get disk format of disk .*: usage"),
    ],
)
def test_a_block_device_that_may_hold_something_is_never_formatted(
    tmp_path: Path,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    probed: tuple[int, str],
    read_only: bool,
    message: str,
) -> None:
    monkeypatch.setattr(stat, "S_ISBLK", lambda mode: True)
    machine.answers["blkid"] = probed
    with pytest.raises(OSError, match=message):
        show_local(local(tmp_path, read_only=read_only), machine.mounts, machine)
    assert len(machine.ran) == 1


def test_nfs_is_mounted_by_the_machines_own_command(tmp_path: Path, machine: Machine) -> None:
    step = remote(tmp_path)
    mount_remote(step, machine.mounts, machine)
    mount_remote(step, machine.mounts, machine)
    assert machine.ran == [f"mount -t nfs -o vers=4.1 srv:/x {step.path}"]


def test_a_refused_mount_is_told_with_the_commands_own_words(tmp_path: Path, machine: Machine) -> None:
    machine.answers["mount"] = (32, "mount.nfs: access denied")
    step = remote(tmp_path)
    with pytest.raises(OSError, match="mount failed") as caught:
        mount_remote(step, machine.mounts, machine)
    assert str(caught.value) == REFUSED.format(path=step.path)
    assert not step.path.exists()


def test_a_command_gives_its_code_and_both_outputs() -> None:
    assert shown.run_command(["sh", "-c", "echo out; echo err >&2; exit 3"]) == (3, "out\nerr")


def test_a_command_that_does_not_end_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "COMMAND_TIMEOUT_S", 0.05)
    with pytest.raises(TimeoutError, match="sleep did not end"):
        shown.run_command(["sleep", "9"])
