"""Images without a registry: pause from catatonit, busybox from Debian's static binaries, as OCI archives in the cache.

The names are those that manifests and runtimes ask for, so pods run as they would with the published images. busybox
gets bash as its `sh`, because ash drops variables with dots and dashes in their names, which Kubernetes allows.
"""

import gzip
import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hack import debian
from hack.paths import cache_dir

PAUSE = "registry.k8s.io/pause:3.10.2"
BUSYBOX = "docker.io/library/busybox:1.36"
FORMAT = 1
"""Raise it when what is packed changes: the archives in the cache are named by it."""

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
USERS = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
GROUPS = "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n"


class ImageError(Exception):
    """An image can't be packed here; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class File:
    """One entry of an image's only layer. `link`: a symbolic link there; `content` None otherwise: a folder."""

    mode: int
    content: bytes | None = None
    link: str = ""


def archives() -> list[Path]:
    """The archives of all test images, packed first where the cache lacks them."""
    folder = cache_dir() / "images"
    folder.mkdir(exist_ok=True)
    made = [folder / f"pause-{FORMAT}.tar", folder / f"busybox-{FORMAT}.tar"]
    if not made[0].exists():
        binary = _static_binary("catatonit", "catatonit")
        _pack(made[0], [PAUSE, "registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.6"],
              {"pause": File(0o755, binary.read_bytes())}, entrypoint=["/pause", "-P"])  # fmt: skip
    if not made[1].exists():
        _pack(made[1], [BUSYBOX, "docker.io/library/busybox:latest"], _busybox_files(), command=["sh"])
    return made


def _busybox_files() -> dict[str, File]:
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


def _pack(
    archive: Path,
    names: Sequence[str],
    files: Mapping[str, File],
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
) -> None:
    """An OCI archive of one layer, to be imported under every one of `names`; the same files give the same bytes."""
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    layer = _layer(files)
    settings: dict[str, object] = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    if entrypoint:
        settings["Entrypoint"] = list(entrypoint)
    if command:
        settings["Cmd"] = list(command)
    unfinished = archive.with_suffix(".unfinished")
    with tarfile.open(unfinished, "w") as out:
        packed = _blob(out, "application/vnd.oci.image.layer.v1.tar+gzip", gzip.compress(layer, 1, mtime=0))
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _blob(out, "application/vnd.oci.image.config.v1+json", _json(config)),
            "layers": [packed],
        }
        described = _blob(out, "application/vnd.oci.image.manifest.v1+json", _json(manifest))
        index = [
            {
                **described,
                "platform": {"architecture": architecture, "os": "linux"},
                "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
            }
            for name in names
        ]
        _add(out, "index.json", File(0o644, _json({"schemaVersion": 2, "manifests": index})))
        _add(out, "oci-layout", File(0o644, _json({"imageLayoutVersion": "1.0.0"})))
    unfinished.rename(archive)


def _layer(files: Mapping[str, File]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for path, file in files.items():
            _add(out, path, file)
    return buffer.getvalue()


def _add(out: tarfile.TarFile, path: str, file: File) -> None:
    entry = tarfile.TarInfo(path)
    entry.mode = file.mode
    if file.link:
        entry.type = tarfile.SYMTYPE
        entry.linkname = file.link
    elif file.content is None:
        entry.type = tarfile.DIRTYPE
    content = file.content or b""
    entry.size = len(content)
    out.addfile(entry, io.BytesIO(content))


def _blob(out: tarfile.TarFile, media_type: str, content: bytes) -> dict[str, object]:
    digest = _digest(content)
    _add(out, f"blobs/{digest.replace(':', '/')}", File(0o644, content))
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


if __name__ == "__main__":
    print(*archives(), sep="\n")
