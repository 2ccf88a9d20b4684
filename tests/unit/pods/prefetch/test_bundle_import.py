"""What is in a bundle: layouts and docker's archives come in whole, and of one that is no good nothing stays."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import AsyncIterable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zstandard

from agent.cri._generated import api_pb2
from agent.cri.content import BlobInfo
from agent.cri.image_import import Target
from agent.errors import NotFound, Permanent
from agent.node.facts import go_architecture
from agent.pods.prefetch import archive
from agent.pods.prefetch.bundle_import import Importer
from hack import oci

NAME = "r.example/app:1"
CONFIG = {"architecture": "amd64", "os": "linux"}


@dataclass
class Runtime:
    """containerd's content, leases and names: what no name leads to goes with its lease."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    leases: set[str] = field(default_factory=set)
    tags: Tags = field(default_factory=lambda: Tags())

    async def create(self, lease: str, labels: Mapping[str, str]) -> None:
        self.leases.add(lease)

    async def delete(self, lease: str) -> None:
        self.leases.discard(lease)
        kept: set[str] = set()
        reached = [target.digest for target in self.tags.names.values()]
        while reached:
            kept.add(digest := reached.pop())
            reached += [one for one in self.labels.get(digest, {}).values() if one not in kept]
        self.blobs = {digest: content for digest, content in self.blobs.items() if digest in kept}

    async def info(self, digest: str) -> BlobInfo | None:
        return BlobInfo(digest, len(self.blobs[digest]), 0, {}) if digest in self.blobs else None

    async def read(self, digest: str, limit: int) -> bytes:
        if digest not in self.blobs:
            raise NotFound("no such blob")
        return self.blobs[digest]

    async def label(self, digest: str, labels: Mapping[str, str]) -> None:
        self.labels.setdefault(digest, {}).update(labels)

    async def write(self, ref: str, pieces: AsyncIterable[bytes], total: int, expected: str, lease: str) -> str:
        assert lease in self.leases
        if expected in self.blobs:
            async for _ in pieces:
                return expected  # without the rest of it
        content = b"".join([piece async for piece in pieces])
        digest = _digest(content)
        assert total == len(content)
        if expected not in ("", digest):
            raise Permanent("", f"unexpected commit digest {digest}, expected {expected}")
        self.blobs[digest] = content
        return digest

    async def image_status(self, image: api_pb2.ImageSpec) -> api_pb2.Image | None:
        return api_pb2.Image(id="sha256:1") if image.image in self.tags.names else None


@dataclass
class Tags:
    names: dict[str, Target] = field(default_factory=dict)
    marked: set[str] = field(default_factory=set)

    async def name_as(self, name: str, target: Target, labels: Mapping[str, str]) -> None:
        self.names[name] = target

    async def label(self, name: str, labels: Mapping[str, str]) -> bool:
        self.marked.add(name)
        return name in self.names


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _tar(path: Path, files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> Path:
    with tarfile.open(path, "w") as out:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            out.addfile(entry)
    return path


def _layout(**more: Any) -> dict[str, bytes]:
    """An image layout with one image and two layers, file by file."""
    layers = [gzip.compress(b"one" * 1000), b"two"]
    config = json.dumps({**CONFIG, **more.get("config", {})}).encode()
    manifest = json.dumps(
        {
            "config": {"digest": _digest(config), "size": len(config)},
            "layers": [{"digest": _digest(layer), "size": len(layer)} for layer in layers],
        }
    ).encode()
    annotations = more.get("annotations", {"io.containerd.image.name": NAME})
    entry = {"digest": _digest(manifest), "size": len(manifest), "annotations": annotations}
    files = {f"blobs/{_digest(one).replace(':', '/')}": one for one in (config, manifest, *layers)}
    return {**files, "index.json": json.dumps({"manifests": [entry]}).encode(), "oci-layout": b"{}"}


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


@pytest.fixture
def importer(runtime: Runtime) -> Importer:
    return Importer(runtime, runtime, runtime, runtime.tags, "amd64")


_PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".tar.zst": zstandard.ZstdCompressor().compress,
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
}


@pytest.mark.parametrize("suffix", [".tar", ".tar.zst", ".tar.gz", ".tgz"])
async def test_a_layout_comes_in_whole_and_is_kept_by_its_name(
    tmp_path: Path, runtime: Runtime, importer: Importer, suffix: str
) -> None:
    path = _tar(tmp_path / "made.tar", {f"./{name}": content for name, content in _layout().items()})
    if pack := _PACKED.get(suffix):
        whole, path = path.read_bytes(), tmp_path / f"x{suffix}"
        path.write_bytes(pack(whole))
    assert await importer.run(path) == (NAME,)
    assert len(runtime.blobs) == 4
    assert not runtime.leases
    assert runtime.tags.marked == {NAME}


async def test_what_is_packed_here_is_one_and_its_layers_are_taken_once(tmp_path: Path, runtime: Runtime) -> None:
    shared, own = oci.layer({"a": oci.File(0o644, b"a" * 3_000_000)}), oci.layer({"b": oci.File(0o644, b"b")})
    packed = [oci.Image(("r.example/a:1", "r.example/a:2"), (shared,)), oci.Image(("r.example/b:1",), (shared, own))]
    oci.pack(tmp_path / "x.tar", packed)
    importer = Importer(runtime, runtime, runtime, runtime.tags, go_architecture(platform.machine()))
    for _ in range(2):
        assert await importer.run(tmp_path / "x.tar") == ("r.example/a:1", "r.example/a:2", "r.example/b:1")


async def test_what_docker_saves_comes_in_with_a_manifest_of_its_own(
    tmp_path: Path, runtime: Runtime, importer: Importer
) -> None:
    config, layer = json.dumps(CONFIG).encode(), b"layer"
    said = [{"Config": "c.json", "RepoTags": ["busybox:1.36"], "Layers": ["l/layer.tar", "m/layer.tar", "z"]}]
    files = {
        "c.json": config,
        "l/layer.tar": layer,
        "z": gzip.compress(b"z"),
        "manifest.json": json.dumps(said).encode(),
    }
    path = _tar(tmp_path / "x.tar", files, {"m/layer.tar": "../l/layer.tar"})
    assert await importer.run(path) == ("docker.io/library/busybox:1.36",)
    manifest = json.loads(runtime.blobs[runtime.tags.names["docker.io/library/busybox:1.36"].digest])
    assert [one["digest"] for one in manifest["layers"]] == [_digest(layer), _digest(layer), _digest(files["z"])]
    assert [one["mediaType"].rpartition(".")[2] for one in manifest["layers"]] == ["tar", "tar", "gzip"]
    assert manifest["config"]["digest"] == _digest(config)


async def test_of_several_machines_the_own_one_is_enough(tmp_path: Path, runtime: Runtime, importer: Importer) -> None:
    files = _layout()
    index = json.loads(files["index.json"])
    (own,) = index["manifests"]
    inner = json.dumps({"manifests": [{"digest": "sha256:" + "0" * 64, "size": 1}, own]}).encode()
    outer = {"digest": _digest(inner), "size": len(inner), "annotations": own["annotations"]}
    files[f"blobs/{_digest(inner).replace(':', '/')}"] = inner
    files["index.json"] = json.dumps({"manifests": [outer]}).encode()
    assert await importer.run(_tar(tmp_path / "x.tar", files)) == (NAME,)
    assert runtime.labels[_digest(inner)] == {"containerd.io/gc.ref.content.m.1": own["digest"]}
    assert len(runtime.blobs) == 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("cut", "it is no whole tar archive|it ends within"),
        ("empty", "it is no whole tar archive|it names no image"),
        ("lies", "unexpected commit digest"),
        ("lacks", "is not in the archive"),
        ("nameless", "it names no image"),
        ("badly named", "is not the name of an image"),
        ("of another machine", "is for linux/arm64, not for linux/amd64"),
        ("no json", "index.json can't be read"),
    ],
)
async def test_one_that_is_no_good_is_refused_and_leaves_nothing(
    tmp_path: Path, runtime: Runtime, importer: Importer, change: str, said: str
) -> None:
    files = _layout()
    blobs = [name for name in files if name.startswith("blobs/")]
    match change:
        case "lies":
            files[blobs[-1]] = b"twe"
        case "lacks":
            del files[blobs[-1]]
        case "nameless":
            files = _layout(annotations={"org.opencontainers.image.ref.name": "latest"})
        case "badly named":
            files = _layout(annotations={"io.containerd.image.name": "R.example/APP"})
        case "of another machine":
            files = _layout(config={"architecture": "arm64"})
        case "no json":
            files["index.json"] = b"{"
    path = _tar(tmp_path / "x.tar", files)
    if change in ("cut", "empty"):
        path.write_bytes(path.read_bytes()[: 3000 if change == "cut" else 0])
    with pytest.raises(Permanent, match=said):
        await importer.run(path)
    assert not runtime.blobs
    assert not runtime.leases
    assert not runtime.tags.names


@pytest.mark.parametrize("suffix", _PACKED)
async def test_a_packed_one_that_is_cut_or_spoilt_is_no_whole_archive(
    tmp_path: Path, importer: Importer, suffix: str
) -> None:
    whole = _PACKED[suffix](_tar(tmp_path / "made.tar", _layout()).read_bytes())
    for content in (whole[: len(whole) // 2], whole[:10] + b"\xff" * 16 + whole[26:], b"not packed at all"):
        (tmp_path / f"x{suffix}").write_bytes(content)
        with pytest.raises(Permanent, match=r"it is no whole tar archive|it cannot be unpacked|it names no image"):
            await importer.run(tmp_path / f"x{suffix}")


async def test_another_file_is_refused_by_its_name(tmp_path: Path, importer: Importer) -> None:
    _tar(tmp_path / "made.tar", _layout()).rename(tmp_path / "made.tar.part")
    with pytest.raises(Permanent, match=r"^its name ends with none of \.tar, \.tar\.zst, \.tar\.gz, \.tgz$"):
        await importer.run(tmp_path / "made.tar.part")


def test_no_more_than_a_piece_is_read_at_once(tmp_path: Path) -> None:
    path = _tar(tmp_path / "x.tar", {"../a/./b": b"x" * (archive.PIECE_BYTES * 2 + 1)})
    member, *pieces = archive.members(path)
    assert member == archive.Member("a/b", archive.PIECE_BYTES * 2 + 1)
    assert [len(piece) for piece in pieces if isinstance(piece, bytes)] == [archive.PIECE_BYTES] * 2 + [1]
