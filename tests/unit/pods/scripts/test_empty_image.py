"""The empty image is made when it is not there, and only then."""

import asyncio
import json
from collections.abc import Mapping

import pytest

from agent.cri._generated import api_pb2
from agent.cri.image_import import Blob
from agent.errors import Permanent, Retryable
from agent.pods.scripts.empty_image import EmptyImage, blobs
from agent.pods.scripts.kind import HOST_IMAGE


class Images:
    """Shows an image a few looks after it was named."""

    def __init__(self, delay: int = 0, error: Permanent | None = None) -> None:
        self.delay = delay
        self.error = error
        self.written: list[Blob] = []
        self.named: list[tuple[str, str]] = []

    async def image_status(self, image: api_pb2.ImageSpec) -> api_pb2.Image | None:
        await asyncio.sleep(0)
        if not self.named:
            return None
        self.delay -= 1
        return None if self.delay >= 0 else api_pb2.Image(id="sha256:e", repo_tags=[image.image])

    async def write(self, blob: Blob) -> None:
        if self.error:
            raise self.error
        self.written.append(blob)

    async def name(self, name: str, target: Blob, labels: Mapping[str, str]) -> None:
        assert target in self.written
        self.named.append((name, target.digest))


async def no_sleep(_: float) -> None:
    return None


async def test_it_is_made_once_and_made_again_when_it_is_gone() -> None:
    images = Images(delay=3)
    empty = EmptyImage(images, images, no_sleep)
    assert (await empty.ensure()).repo_tags == [HOST_IMAGE]
    await empty.ensure()
    assert len(images.named) == 1
    images.named.clear()
    await empty.ensure()
    assert len(images.named) == 1


async def test_a_runtime_that_never_shows_it_is_asked_again_later() -> None:
    images = Images(delay=10_000)
    with pytest.raises(Retryable, match="does not show it yet"):
        await EmptyImage(images, images, no_sleep).ensure()


async def test_a_runtime_that_takes_no_images_is_told() -> None:
    images = Images(error=Permanent("Unimplemented", "no such service"))
    with pytest.raises(Permanent, match="no such service") as refused:
        await EmptyImage(images, images, no_sleep).ensure()
    assert refused.value.reason == "ErrImagePull"


def test_the_blobs_name_each_other_and_hold_nothing() -> None:
    config, manifest = blobs("aarch64")
    image = json.loads(config.content)
    assert (image["architecture"], image["os"], image["rootfs"]["diff_ids"]) == ("arm64", "linux", [])
    described = json.loads(manifest.content)
    assert described["config"] == {"mediaType": config.media_type, "digest": config.digest, "size": len(config.content)}
    assert described["layers"] == []
    assert manifest.labels == {"containerd.io/gc.ref.content.config": config.digest}
    assert blobs("aarch64") == (config, manifest)
