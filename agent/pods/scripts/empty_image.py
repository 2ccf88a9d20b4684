"""The image of host programs: empty, made by the agent itself, put into the runtime when it is first needed.

In: the runtime's images. Out: the image as CRI knows it. Somebody may remove it at any time: it is made again.
"""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from agent.cri._generated import api_pb2
from agent.cri.containerd import PINNED
from agent.cri.image_import import Blob
from agent.errors import Permanent, Retryable
from agent.pods.scripts.kind import HOST_IMAGE

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_LOOKS: Final = 50
_LOOK_EVERY_S: Final = 0.1


class Importer(Protocol):
    async def write(self, blob: Blob) -> None: ...
    async def name(self, name: str, target: Blob, labels: Mapping[str, str]) -> None: ...


class ImageStatus(Protocol):
    async def image_status(self, image: api_pb2.ImageSpec) -> api_pb2.Image | None: ...


class EmptyImage:
    """One for all pods of a node."""

    def __init__(
        self, images: ImageStatus, importer: Importer, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._images = images
        self._importer = importer
        self._sleep = sleep
        self._making = asyncio.Lock()

    async def ensure(self) -> api_pb2.Image:
        """The image, made where the runtime does not have it. Raises Permanent("ErrImagePull"), Retryable."""
        spec = api_pb2.ImageSpec(image=HOST_IMAGE)
        if found := await self._images.image_status(spec):
            return found
        async with self._making:
            config, manifest = blobs(platform.machine())
            try:
                await self._importer.write(config)
                await self._importer.write(manifest)
                await self._importer.name(HOST_IMAGE, manifest, PINNED)
            except Permanent as error:
                raise Permanent("ErrImagePull", f"cannot make the empty image {HOST_IMAGE}: {error}") from error
            for _ in range(_LOOKS):
                if found := await self._images.image_status(spec):
                    return found
                await self._sleep(_LOOK_EVERY_S)
        raise Retryable(f"the runtime was given the empty image {HOST_IMAGE} and does not show it yet")


def blobs(machine: str) -> tuple[Blob, Blob]:
    """(config, manifest) of an OCI image without a layer, for `uname -m`'s machine. The same bytes every time."""
    config = Blob(
        "application/vnd.oci.image.config.v1+json",
        _json(
            {
                "architecture": _ARCHITECTURES.get(machine, machine),
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": []},
            }
        ),
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": config.media_type, "digest": config.digest, "size": len(config.content)},
            "layers": [],
        }
    )
    keep = {"containerd.io/gc.ref.content.config": config.digest}
    return config, Blob("application/vnd.oci.image.manifest.v1+json", manifest, keep)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
