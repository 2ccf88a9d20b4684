"""How much of an image has come, though CRI tells nothing of a pull that runs: what its lease holds in containerd.

In: the lease that the image is pulled under. Out: bytes that are here, bytes that it has, bytes that came since the
last look. All are compressed bytes, as they come over the line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from agent.cri.content import BlobInfo, Ingest
from agent.cri.leases import Leased
from agent.errors import NotFound, Permanent

_MANIFEST_BYTES = 4 << 20
_REFERS_TO_CONFIG = "containerd.io/gc.ref.content.config"


class Content(Protocol):
    async def info(self, digest: str) -> BlobInfo | None: ...
    async def read(self, digest: str, limit: int) -> bytes: ...
    async def ingests(self) -> Mapping[str, Ingest]: ...


class Held(Protocol):
    async def held(self, lease: str) -> Leased: ...


class Progress(msgspec.Struct, frozen=True):
    here: int = 0
    total: int = 0
    """0: not known yet."""
    came: int = 0
    """Since the last look."""


class _Descriptor(msgspec.Struct):
    digest: str
    size: int = 0


class _Manifest(msgspec.Struct):
    config: _Descriptor
    layers: list[_Descriptor] = []


class Meter:
    """One pull, over all its tries."""

    def __init__(self, content: Content, leases: Held, lease: str, wall: Callable[[], float] = time.time) -> None:
        """`wall`: the machine's clock as it is, which is what containerd dates blobs by."""
        self._content = content
        self._leases = leases
        self._lease = lease
        self._began = wall()
        self._blobs: dict[str, BlobInfo] = {}
        self._parts: dict[str, int] = {}
        """Bytes by digest of what the manifest names."""
        self._level: int | None = None
        """Bytes that came under this lease, as of the last look."""

    async def look(self) -> Progress:
        """Raises Retryable, Permanent."""
        try:
            leased = await self._leases.held(self._lease)
        except NotFound:
            return Progress()
        for digest in leased.content:
            if digest not in self._blobs and (info := await self._content.info(digest)) is not None:
                self._blobs[digest] = info
        if not self._parts:
            await self._find_manifest(leased.content)
        ingests = await self._content.ingests() if leased.ingests else {}
        # containerd names the write of a blob layer-sha256:…, config-sha256:…
        coming = {ref.partition("-")[2]: ingests[ref].offset for ref in leased.ingests if ref in ingests}
        whole = {digest: self._blobs[digest] for digest in leased.content if digest in self._blobs}
        level = sum(coming.values()) + sum(one.size for one in whole.values() if one.created_at >= self._began)
        came = 0 if self._level is None else max(0, level - self._level)
        if self._level is None or level > self._level:
            # One that is being committed is in neither list for a moment.
            self._level = level
        here = sum(
            min(size, whole[part].size if part in whole else coming.get(part, 0)) for part, size in self._parts.items()
        )
        return Progress(here, sum(self._parts.values()), came)

    async def _find_manifest(self, digests: tuple[str, ...]) -> None:
        for digest in digests:
            info = self._blobs.get(digest)
            if info is None or info.size > _MANIFEST_BYTES:
                continue
            if _REFERS_TO_CONFIG not in info.labels:
                # containerd writes its labels once it has read it: look at it again.
                del self._blobs[digest]
                continue
            try:
                found = msgspec.json.decode(await self._content.read(digest, _MANIFEST_BYTES), type=_Manifest)
            except (msgspec.DecodeError, NotFound, Permanent):
                continue
            self._parts = {part.digest: part.size for part in (found.config, *found.layers)}
            return
