"""The machine's root folder as containers of host programs need it."""

import os
import pwd
from pathlib import Path

from agent.pods.scripts.host_program import HostFolder
from agent.pods.scripts.host_root import account, mount_points, read_host

MOUNTINFO = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:4 / {root}/mnt rw,relatime shared:7 - tmpfs tmpfs rw
31 27 0:4 / {root}/srv rw,relatime master:3 propagate_from:2 - tmpfs tmpfs rw
32 27 0:4 / {root}/with\\040blank rw,relatime shared:9 - tmpfs tmpfs rw
33 32 0:4 / {root}/with\\040blank rw,relatime - tmpfs tmpfs rw
"""


def root(tmp_path: Path) -> tuple[Path, Path]:
    top = (tmp_path / "root").resolve()
    for name in ("etc", "mnt", "srv/deep", "usr/bin", "proc", "lost+found", "sys/fs/cgroup", "with blank"):
        (top / name).mkdir(parents=True)
    (top / "bin").symlink_to("usr/bin")
    (top / "data").symlink_to(top / "srv" / "deep")
    (top / "broken").symlink_to("nowhere")
    (top / "swapfile").touch()
    (top / "etc" / "hosts").touch()
    (top / "etc" / "resolv.conf").symlink_to("/nowhere/at/all")
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTINFO.format(root=top))
    return top, mounts


def test_folders_and_links_to_folders_are_bound_but_not_proc(tmp_path: Path) -> None:
    found = read_host(None, *root(tmp_path))
    names = ["/bin", "/data", "/etc", "/mnt", "/srv", "/sys", "/usr", "/with blank", "/sys/fs/cgroup"]
    assert [folder.path for folder in found.folders] == names
    assert found.files == ("/etc/hosts",)
    assert found.account is None


def test_folders_on_shared_mounts_hear_of_later_mounts(tmp_path: Path) -> None:
    found = {folder.path for folder in read_host(None, *root(tmp_path)).folders if folder.propagates}
    assert found == {"/mnt", "/srv", "/data"}


def test_the_mount_on_top_counts() -> None:
    assert mount_points(["1 0 0:1 / / rw shared:1 - a b c", "2 1 0:1 / / rw - a b c"]) == {"/": False}


def test_this_machine_can_be_read() -> None:
    found = read_host(None)
    assert HostFolder("/usr", found.folders[0].propagates).path in {folder.path for folder in found.folders}
    assert "/proc" not in {folder.path for folder in found.folders}


def test_groups_are_those_of_the_user_database() -> None:
    me = pwd.getpwuid(os.getuid())
    found = account(me.pw_uid)
    assert found is not None
    assert found.group == me.pw_gid
    assert set(found.groups) == set(os.getgrouplist(me.pw_name, me.pw_gid))
    assert account(2**31 - 7) is None
