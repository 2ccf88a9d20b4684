"""Import one bundle into the runtime: its blobs as they stream by, its images once all of them are there.

In: a file. Out: names of images that the runtime shows. Until the images have their names everything is held by a
lease only: of a bundle that is refused nothing stays. containerd checks every blob against its digest as it is written.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from agent.cri._generated import api_pb2
from agent.cri.containerd import PINNED
from agent.cri.content import BlobInfo
from agent.cri.image_import import Target
from agent.errors import NotFound, Permanent, Retryable
from agent.pods.prefetch.archive import BadArchive, Member, members
from agent.pods.prefetch.layout import (
    DOCKER,
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    INDEX,
    JSON_BYTES,
    OCI_MANIFEST,
    Config,
    Descriptor,
    DockerImage,
    Manifest,
    Named,
    blob_digest,
    decode,
    docker_manifest,
    full_name,
    keep_labels,
    named,
)

LEASE_LABEL = "io.edgelet/bundle"
SHOWN_WITHIN_S = 5.0
_LOOK_S = 0.1
_GZIP = b"\x1f\x8b"


class Content(Protocol):
    async def info(self, digest: str) -> BlobInfo | None: ...
    async def read(self, digest: str, limit: int) -> bytes: ...
    async def label(self, digest: str, labels: Mapping[str, str]) -> None: ...
    async def write(self, ref: str, pieces: AsyncIterator[bytes], total: int, expected: str, lease: str) -> str: ...


class Leases(Protocol):
    async def create(self, lease: str, labels: Mapping[str, str]) -> None: ...
    async def delete(self, lease: str) -> None: ...


class Names(Protocol):
    async def name_as(self, name: str, target: Target, labels: Mapping[str, str]) -> None: ...
    async def label(self, name: str, labels: Mapping[str, str]) -> bool: ...


class ImageStatus(Protocol):
    async def image_status(self, image: api_pb2.ImageSpec) -> api_pb2.Image | None: ...


class Importer(msgspec.Struct, frozen=True):
    images: ImageStatus
    content: Content
    leases: Leases
    names: Names
    architecture: str
    """Of this machine, as Go writes it."""

    async def run(self, path: Path) -> tuple[str, ...]:
        """The names of its images. Raises Permanent: the bundle is no good; Retryable, OSError."""
        lease = f"edgelet-bundle-{uuid.uuid4().hex}"
        await self.leases.create(lease, {LEASE_LABEL: "import"})
        try:
            return await _Import(self, path, lease).run()
        except BadArchive as error:
            raise Permanent("", str(error)) from error
        finally:
            await asyncio.shield(self.leases.delete(lease))


class _Import(msgspec.Struct):
    of: Importer
    path: Path
    lease: str
    files: dict[str, Descriptor] = msgspec.field(default_factory=dict)
    """By path in the archive, with their media type where it is a layer of docker's."""
    links: dict[str, str] = msgspec.field(default_factory=dict)
    index: bytes | None = None
    docker: bytes | None = None

    async def run(self) -> tuple[str, ...]:
        await self._write_all()
        found = await self._images()
        if not found:
            raise Permanent("", "it names no image (index.json's annotation io.containerd.image.name, or RepoTags)")
        for one in found:
            await self._complete(one.target, one.name)
        for one in found:
            target = Target(one.target.mediaType or OCI_MANIFEST, one.target.digest, one.target.size)
            await self.of.names.name_as(one.name, target, PINNED)
            await self.of.names.label(one.name, PINNED)
        names = tuple(dict.fromkeys(one.name for one in found))
        for name in names:
            await self._shown(name)
        return names

    # ------------------------------------------------------------ blobs

    async def _write_all(self) -> None:
        # Reading and unpacking block, and go on in a thread piece by piece.
        pieces = members(self.path)
        try:
            item = await _next(pieces)
            while item is not None:
                item = await self._take(item, pieces) if isinstance(item, Member) else await _next(pieces)
        finally:
            await asyncio.to_thread(pieces.close)

    async def _take(self, member: Member, pieces: Iterator[Member | bytes]) -> Member | bytes | None:
        """Put the member where it belongs; what comes after it."""
        after: list[Member | None] = [None]

        async def content() -> AsyncIterator[bytes]:
            while isinstance(item := await _next(pieces), bytes):
                yield item
            after[0] = item

        if member.link:
            self.links[member.name] = member.link
            return await _next(pieces)
        if member.name in (INDEX, DOCKER):
            if member.size > JSON_BYTES:
                raise Permanent("", f"{member.name} has {member.size} bytes, more than {JSON_BYTES}")
            whole = b"".join([piece async for piece in content()])
            if member.name == INDEX:
                self.index = whole
            else:
                self.docker = whole
            return after[0]
        await self._write(member, content())
        item = after[0] or await _next(pieces)
        while isinstance(item, bytes):  # containerd has the blob already: the rest of it is passed over
            item = await _next(pieces)
        return item

    async def _write(self, member: Member, content: AsyncIterator[bytes]) -> None:
        expected = blob_digest(member.name)
        summed, first = hashlib.sha256(), b""

        async def summing() -> AsyncIterator[bytes]:
            nonlocal first
            async for piece in content:
                first = first or piece[:2]
                if not expected:
                    await asyncio.to_thread(summed.update, piece)
                yield piece

        ref = f"{self.lease}-{len(self.files)}"
        pieces = summing()
        try:
            digest = await self.of.content.write(ref, pieces, member.size, expected, self.lease)
        except Permanent as error:
            raise Permanent("", f"{member.name}: {error}") from error
        digest = expected or digest or f"sha256:{summed.hexdigest()}"
        media_type = f"{DOCKER_LAYER}.gzip" if first == _GZIP else DOCKER_LAYER
        self.files[member.name] = Descriptor(digest, member.size, media_type)

    # ------------------------------------------------------------ images

    async def _images(self) -> list[Named]:
        found = named(decode(INDEX, self.index, Manifest)) if self.index is not None else []
        if found or self.docker is None:
            return found
        for image in decode(DOCKER, self.docker, list[DockerImage]):
            target = await self._docker_target(image)
            found += [Named(full_name(name), target) for name in image.RepoTags or ()]
        return found

    async def _docker_target(self, image: DockerImage) -> Descriptor:
        config = self._file(image.Config)
        config = Descriptor(config.digest, config.size, DOCKER_CONFIG)
        content = docker_manifest(config, [self._file(path) for path in image.Layers or ()])
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"

        async def once() -> AsyncIterator[bytes]:
            yield content

        await self.of.content.write(f"{self.lease}-{digest}", once(), len(content), digest, self.lease)
        return Descriptor(digest, len(content), DOCKER_MANIFEST)

    def _file(self, path: str) -> Descriptor:
        for _ in range(8):  # a link to a link
            if (found := self.files.get(path)) is not None:
                return found
            path = self.links.get(path, path)
        raise Permanent("", f"manifest.json names {path}, which is not in the archive")

    async def _complete(self, target: Descriptor, name: str) -> None:
        """See that nothing of the image is missing for this machine, and let it be kept by its manifest.

        Raises Permanent.
        """
        manifest = await self._manifest(target, name)
        if manifest.config is not None:
            for part in (manifest.config, *manifest.layers):
                if await self.of.content.info(part.digest) is None:
                    raise Permanent("", f"{name}: blob {part.digest} is not in the archive")
            config = decode(f"{name}: its config", await self._read(manifest.config.digest), Config)
            if (config.os, config.architecture) != ("linux", self.of.architecture):
                raise Permanent(
                    "", f"{name} is for {config.os}/{config.architecture}, not for linux/{self.of.architecture}"
                )
            await self.of.content.label(target.digest, keep_labels(manifest))
            return
        whole: set[str] = set()
        said = f"{name}: its index names no manifest"
        for child in manifest.manifests:
            if await self.of.content.info(child.digest) is None:
                continue
            try:
                await self._complete(child, name)
                whole.add(child.digest)
            except Permanent as error:
                said = str(error)
        if not whole:
            raise Permanent("", said)
        await self.of.content.label(target.digest, keep_labels(manifest, frozenset(whole)))

    async def _manifest(self, target: Descriptor, name: str) -> Manifest:
        return decode(f"{name}: its manifest", await self._read(target.digest), Manifest)

    async def _read(self, digest: str) -> bytes:
        try:
            return await self.of.content.read(digest, JSON_BYTES)
        except NotFound:
            raise Permanent("", f"blob {digest} is not in the archive") from None

    async def _shown(self, name: str) -> None:
        """Return once CRI shows the image: it hears of the name and takes it over by itself."""
        loop = asyncio.get_running_loop()
        until = loop.time() + SHOWN_WITHIN_S
        while await self.of.images.image_status(api_pb2.ImageSpec(image=name)) is None:
            if loop.time() > until:
                raise Retryable(f"the runtime was given the image {name} and does not show it yet")
            await asyncio.sleep(_LOOK_S)


async def _next(pieces: Iterator[Member | bytes]) -> Member | bytes | None:
    """None: there is nothing more."""
    return await asyncio.to_thread(next, pieces, None)
