"""Images without a registry: pause from catatonit, busybox from Debian's static binaries, as OCI archives in the cache.

The names are those that manifests and runtimes ask for, so pods run as they would with the published images. busybox
gets bash as its `sh`, because ash drops variables with dots and dashes in their names, which Kubernetes allows.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hack import debian
from hack.oci import File, Image, layer, pack
from hack.paths import cache_dir

PAUSE = "registry.k8s.io/pause:3.10.2"
BUSYBOX = "docker.io/library/busybox:1.36"
IPERF3 = "docker.io/library/iperf3:3"
IPERF3_PACKAGES = ("iperf3", "libiperf0", "libsctp1", "libssl3")
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


def iperf3() -> Path:
    """The archive of an image with iperf3 and a shell. Raises ImageError."""
    archive = cache_dir() / "images" / f"iperf3-{FORMAT}.tar"
    if not archive.exists():
        archive.parent.mkdir(exist_ok=True)
        files = {"lib": File(0o755), "lib64": File(0o755), **_with_libraries("usr/bin/iperf3", IPERF3_PACKAGES)}
        pack(archive, [Image((IPERF3,), (layer(busybox_files()), layer(files)))])
    return archive


def _with_libraries(program: str, packages: Sequence[str]) -> dict[str, File]:
    """A program of the first package with the libraries that it is linked to, from the packages and this machine."""
    roots = [debian.unpacked(package) for package in packages]
    if None in roots:
        raise ImageError(f"no packages {', '.join(packages)} here")
    folders = [str(folder) for root in roots if root for folder in (root / "usr/lib").glob("*-linux-gnu*")]
    binary = roots[0] / program if roots[0] else Path()
    env = {"LC_ALL": "C", "LD_LIBRARY_PATH": ":".join(folders)}
    listed = subprocess.run(["ldd", binary], check=True, capture_output=True, text=True, env=env).stdout
    files = {program: File(0o755, binary.read_bytes())}
    for line in listed.splitlines():
        name, _, rest = line.strip().partition(" => ")
        path = (rest or name).split(" (")[0]
        if path.startswith("/"):
            # The loader has to be where the program says, the libraries where the loader looks.
            files[f"lib/{name}" if rest else path.lstrip("/")] = File(0o755, Path(path).read_bytes())
        elif "not found" in rest:
            raise ImageError(f"{program} needs {name}, which none of {', '.join(packages)} has")
    return files


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
