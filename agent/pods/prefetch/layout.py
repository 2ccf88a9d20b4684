"""What a bundle says of its images: an OCI image layout, or the archive of `docker save`. Pure.

In: the archive's index. Out: images by name. Sources: the OCI image layout (index.json, blobs/), docker's archive
(manifest.json), containerd's annotation for the name of an image.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from agent.errors import Permanent
from agent.pods.images import parse_image

INDEX = "index.json"
DOCKER = "manifest.json"
JSON_BYTES = 8 << 20
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"
_BLOB = re.compile(r"blobs/(sha256|sha512)/([0-9a-f]{64,128})")


class Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""


class Descriptor(msgspec.Struct, frozen=True):
    digest: str
    size: int = 0
    mediaType: str = ""
    annotations: dict[str, str] | None = None
    platform: Platform | None = None


class Manifest(msgspec.Struct, frozen=True):
    """A manifest, or an index of them: the one has a config, the other manifests."""

    mediaType: str = ""
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()


class Config(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = "linux"


class DockerImage(msgspec.Struct, frozen=True):
    """Paths in the archive."""

    Config: str
    RepoTags: tuple[str, ...] | None = None
    Layers: tuple[str, ...] | None = None


class Named(msgspec.Struct, frozen=True):
    name: str
    """In full, as containerd names images."""
    target: Descriptor


_T = TypeVar("_T")


def decode(what: str, content: bytes, kind: type[_T]) -> _T:
    """Raises Permanent."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise Permanent("", f"{what} can't be read: {error}") from error


def blob_digest(path: str) -> str:
    """The digest that the blob at this path has by its name; empty: it is none."""
    matched = _BLOB.fullmatch(path)
    return f"{matched[1]}:{matched[2]}" if matched else ""


def named(index: Manifest) -> list[Named]:
    """The images of a layout that have a name. Raises Permanent for a name that is none."""
    found = []
    for entry in index.manifests:
        given = entry.annotations or {}
        name = given.get(_NAME) or given.get(_REF_NAME, "")
        # Many tools write only a tag there, which names nothing.
        if name and (_NAME in given or re.search(r"[:/@]", name)):
            found.append(Named(full_name(name), entry))
    return found


def full_name(name: str) -> str:
    """Raises Permanent."""
    try:
        return str(parse_image(name))
    except Permanent:
        raise Permanent("", f"{name!r} is not the name of an image") from None


def keep_labels(manifest: Manifest, present: frozenset[str] | None = None) -> dict[str, str]:
    """Labels that keep what a manifest names as long as itself; of an index only what is `present`."""
    labels = {}
    if manifest.config is not None:
        labels["containerd.io/gc.ref.content.config"] = manifest.config.digest
    for number, layer in enumerate(manifest.layers):
        labels[f"containerd.io/gc.ref.content.l.{number}"] = layer.digest
    for number, child in enumerate(manifest.manifests):
        if present is None or child.digest in present:
            labels[f"containerd.io/gc.ref.content.m.{number}"] = child.digest
    return labels


def docker_manifest(config: Descriptor, layers: list[Descriptor]) -> bytes:
    """The manifest that docker's archive leaves out."""

    def written(one: Descriptor) -> dict[str, object]:
        return {"mediaType": one.mediaType, "size": one.size, "digest": one.digest}

    whole = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": written(config),
        "layers": [written(layer) for layer in layers],
    }
    return msgspec.json.encode(whole, order="sorted")
