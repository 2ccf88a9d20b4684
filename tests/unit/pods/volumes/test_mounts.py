from pathlib import Path

from agent.pods.volumes.mounts import KernelMounts, mount_points

MOUNTINFO = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /var/lib/e/pods/u1/volumes/kubernetes.io~secret/s rw - tmpfs tmpfs rw
31 22 0:26 / /var/lib/e/pods/u1/volumes/kubernetes.io~empty-dir/m rw shared:9 - tmpfs tmpfs rw,size=1k
32 31 8:1 /x /var/lib/e/pods/u1/volumes/kubernetes.io~empty-dir/m/in\040side rw - ext4 /dev/sda1 rw
33 31 8:1 /x /var/lib/e/pods/u1/volumes/kubernetes.io~empty-dir/m/in\040side rw - ext4 /dev/sda1 rw
34 22 0:27 / /var/lib/e/pods/u10/volumes/kubernetes.io~secret/s rw - tmpfs tmpfs rw
"""


def test_only_mounts_below_the_path_are_found_deepest_first_and_as_often_as_they_are_stacked() -> None:
    pod = Path("/var/lib/e/pods/u1")
    inside = pod / "volumes/kubernetes.io~empty-dir/m/in side"
    assert mount_points(MOUNTINFO, pod) == (
        inside,
        inside,
        pod / "volumes/kubernetes.io~secret/s",
        pod / "volumes/kubernetes.io~empty-dir/m",
    )


def test_the_path_itself_counts() -> None:
    secret = Path("/var/lib/e/pods/u10/volumes/kubernetes.io~secret/s")
    assert mount_points(MOUNTINFO, secret) == (secret,)


def test_the_kernel_is_asked_what_is_mounted(tmp_path: Path) -> None:
    mounts = KernelMounts()
    assert mounts.is_mount_point(Path("/proc"))
    assert not mounts.is_mount_point(tmp_path)
    assert not mounts.is_mount_point(tmp_path / "absent")
    assert Path("/proc") in mounts.at_or_below(Path("/proc"))
