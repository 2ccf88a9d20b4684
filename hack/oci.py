"""Pack files as container images: one OCI archive that containerd imports, with as many images as wanted.

The same files give the same bytes, and a layer that several images have in common is in the archive once.
"""

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class File:
    """One entry of a layer. `link`: a symbolic link there; `content` None otherwise: a folder."""

    mode: int
    content: bytes | None = None
    link: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """`names`: imported under every one of them. `layers`: tar archives, the lowest first."""

    names: Sequence[str]
    layers: Sequence[bytes]
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    user: str = ""


def layer(files: Mapping[str, File]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for path, file in files.items():
            _add(out, path, file)
    return buffer.getvalue()


def layer_of(root: Path) -> bytes:
    """All below `root`, owners and modes kept; no device files, which a runtime makes itself."""

    def entry(found: tarfile.TarInfo) -> tarfile.TarInfo | None:
        found.mtime = 0
        return None if found.ischr() or found.isblk() else found

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        out.add(root, arcname=".", filter=entry)
    return buffer.getvalue()


def pack(archive: Path, images: Sequence[Image]) -> None:
    """Write the archive, whole or not at all."""
    unfinished = archive.with_suffix(".unfinished")
    with tarfile.open(unfinished, "w") as out:
        blobs = _Blobs(out)
        index = [entry for image in images for entry in _entries(blobs, image)]
        _add(out, "index.json", File(0o644, _json({"schemaVersion": 2, "manifests": index})))
        _add(out, "oci-layout", File(0o644, _json({"imageLayoutVersion": "1.0.0"})))
    unfinished.rename(archive)


def _entries(blobs: "_Blobs", image: Image) -> list[dict[str, object]]:
    """The image's entries in the index, one a name."""
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    settings: dict[str, object] = {"Env": [f"PATH={PATH}"]}
    if image.entrypoint:
        settings["Entrypoint"] = list(image.entrypoint)
    if image.command:
        settings["Cmd"] = list(image.command)
    if image.user:
        settings["User"] = image.user
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [_digest(content) for content in image.layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blobs.add("application/vnd.oci.image.config.v1+json", _json(config)),
        "layers": [blobs.add_layer(content) for content in image.layers],
    }
    described = blobs.add("application/vnd.oci.image.manifest.v1+json", _json(manifest))
    return [
        {
            **described,
            "platform": {"architecture": architecture, "os": "linux"},
            "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
        }
        for name in image.names
    ]


class _Blobs:
    """What is in the archive already."""

    def __init__(self, out: tarfile.TarFile) -> None:
        self._out = out
        self._layers: dict[str, dict[str, object]] = {}

    def add(self, media_type: str, content: bytes) -> dict[str, object]:
        digest = _digest(content)
        _add(self._out, f"blobs/{digest.replace(':', '/')}", File(0o644, content))
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def add_layer(self, content: bytes) -> dict[str, object]:
        unpacked = _digest(content)
        if unpacked not in self._layers:
            packed = gzip.compress(content, 1, mtime=0)
            self._layers[unpacked] = self.add("application/vnd.oci.image.layer.v1.tar+gzip", packed)
        return self._layers[unpacked]


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


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
