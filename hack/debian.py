"""Take single files out of Debian packages without installing them.

Installing would start services (etcd) and push other packages out (busybox-static does). Works as any user; on a
distribution without apt it answers None and the caller finds another way.
"""

import shutil
import subprocess
from pathlib import Path

from hack.paths import cache_dir


def unpacked(package: str) -> Path | None:
    """The root of the unpacked package, kept in the cache; None where apt has no such package."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return None
    root = cache_dir() / "debian" / package
    if root.exists():
        return root
    downloads = root.with_suffix(".download")
    shutil.rmtree(downloads, ignore_errors=True)
    downloads.mkdir(parents=True)
    try:
        if not _download(package, downloads):
            # A machine that never ran it has no package lists at all.
            subprocess.run(["apt-get", "update", "-qq"], check=False, capture_output=True)
            if not _download(package, downloads):
                return None
        [archive] = downloads.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, downloads / "root"], check=True)
        (downloads / "root").rename(root)
    finally:
        shutil.rmtree(downloads, ignore_errors=True)
    return root


def _download(package: str, folder: Path) -> bool:
    command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode == 0
