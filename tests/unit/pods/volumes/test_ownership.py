import os
import stat
from pathlib import Path

import pytest

from agent.pods.volumes.ownership import own
from agent.pods.volumes.steps import Ownership

GROUP = os.getgid()


def tree(root: Path) -> Path:
    (root / "sub").mkdir()
    (root / "sub/file").touch(0o600)
    (root / "link").symlink_to("/etc/passwd")
    for folder in (root, root / "sub"):
        folder.chmod(0o700)
    (root / "sub/file").chmod(0o600)
    return root


def modes(root: Path) -> list[int]:
    return [stat.S_IMODE((root / name).stat().st_mode) for name in (".", "sub", "sub/file")]


def test_files_are_the_groups_to_read_and_write_and_folders_pass_the_group_on(tmp_path: Path) -> None:
    before = os.stat("/etc/passwd")
    own(tree(tmp_path), Ownership(GROUP, on_root_mismatch=False))
    assert modes(tmp_path) == [0o2770, 0o2770, 0o660]
    assert os.stat("/etc/passwd") == before


@pytest.mark.parametrize(("policy", "file"), [(True, 0o600), (False, 0o660)])
def test_a_tree_whose_root_is_right_is_walked_only_by_always(tmp_path: Path, policy: bool, file: int) -> None:
    tree(tmp_path).chmod(0o2770)
    own(tmp_path, Ownership(GROUP, on_root_mismatch=policy))
    assert modes(tmp_path)[2] == file


@pytest.mark.parametrize("mode", [0o770, 0o2750, 0o2700])
def test_a_root_that_lacks_a_bit_is_a_mismatch(tmp_path: Path, mode: int) -> None:
    tree(tmp_path).chmod(mode)
    own(tmp_path, Ownership(GROUP, on_root_mismatch=True))
    assert modes(tmp_path) == [0o2770, 0o2770, 0o660]


def test_a_walk_that_broke_off_leaves_the_root_a_mismatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    tree(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "chmod", refuse)
        with pytest.raises(PermissionError):
            own(tmp_path, Ownership(GROUP, on_root_mismatch=True))
    own(tmp_path, Ownership(GROUP, on_root_mismatch=True))
    assert modes(tmp_path) == [0o2770, 0o2770, 0o660]
