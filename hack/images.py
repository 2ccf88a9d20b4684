"""Images without a registry: pause from catatonit, busybox from Debian's static binaries, as OCI archives in the cache.

The names are those that manifests and runtimes ask for, so pods run as they would with the published images. busybox
gets bash as its `sh`, because ash drops variables with dots and dashes in their names, which Kubernetes allows.
"""

import shutil
import subprocess
from pathlib import Path

from hack import debian
from hack.oci import File, Image, layer, pack
from hack.paths import cache_dir

PAUSE = "registry.k8s.io/pause:3.10.2"
BUSYBOX = "docker.io/library/busybox:1.36"
FORMAT = 1
"""Raise it when what is packed changes: the archives in the cache are named by it."""

USERS = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
GROUPS = "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n"


class ImageError(Exception):
    """An image can't be packed here; the message says what is missing."""


def archives() -> list[Path]:
    """The archives of all test images, packed first where the cache lacks them."""
    folder = cache_dir() / "images"
    folder.mkdir(exist_ok=True)
    made = [folder / f"pause-{FORMAT}.tar", folder / f"busybox-{FORMAT}.tar"]
    if not made[0].exists():
        binary = _static_binary("catatonit", "catatonit")
        names = (PAUSE, *(f"registry.k8s.io/pause:{version}" for version in ("3.10", "3.9", "3.6")))
        content = layer({"pause": File(0o755, binary.read_bytes())})
        pack(made[0], [Image(names, (content,), entrypoint=("/pause", "-P"))])
    if not made[1].exists():
        names = (BUSYBOX, "docker.io/library/busybox:latest")
        pack(made[1], [Image(names, (layer(busybox_files()),), command=("sh",))])
    return made


def busybox_files() -> dict[str, File]:
    """What is in the busybox image. Raises ImageError."""
    busybox = _static_binary("busybox", "busybox-static")
    listed = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    folders = ("dev", "etc", "home", "proc", "root", "sys", "usr", "usr/bin", "usr/sbin", "sbin", "var")
    return {
        "bin": File(0o755),
        **{folder: File(0o755) for folder in folders},
        "tmp": File(0o1777),
        "etc/passwd": File(0o644, USERS.encode()),
        "etc/group": File(0o644, GROUPS.encode()),
        "bin/busybox": File(0o755, busybox.read_bytes()),
        "bin/sh": File(0o755, _static_binary("bash-static", "bash-static").read_bytes()),
        **{f"bin/{name}": File(0o777, link="busybox") for name in listed if name not in ("busybox", "sh")},
    }


def _static_binary(name: str, package: str) -> Path:
    """The installed program where it is static, else the one in the distribution's package."""
    found = shutil.which(name)
    candidates = [Path(found)] if found else []
    if root := debian.unpacked(package):
        candidates += [root / "bin" / name, root / "usr/bin" / name]
    for candidate in candidates:
        if candidate.is_file() and _is_static(candidate):
            return candidate
    raise ImageError(f"no static {name} here: install the package {package}")


def _is_static(binary: Path) -> bool:
    # ldd fails on what is not dynamic, and says so.
    done = subprocess.run(["ldd", binary], check=False, capture_output=True, text=True, env={"LC_ALL": "C"})
    answer = done.stdout + done.stderr
    return "not a dynamic executable" in answer or "statically linked" in answer


if __name__ == "__main__":
    print(*archives(), sep="\n")
