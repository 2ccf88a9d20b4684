"""CRI's ImageService: one method per call, with plain arguments and no logic of its own.

Raises what `agent.cri.runtime` raises.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from agent.cri._generated import api_pb2 as pb
from agent.cri._generated.api_pb2_grpc import ImageServiceStub
from agent.cri.channel import RuntimeChannel
from agent.cri.containerd import under
from agent.cri.runtime import CALL_DEADLINE_S


class ImageClient:
    """The images of the node."""

    def __init__(self, channel: RuntimeChannel) -> None:
        self.channel = channel
        stub = ImageServiceStub(channel.grpc)
        self._list_images = channel.unary("ListImages", stub.ListImages, CALL_DEADLINE_S)
        self._stream_images = channel.streaming("StreamImages", stub.StreamImages)
        self._image_status = channel.unary("ImageStatus", stub.ImageStatus, CALL_DEADLINE_S)
        self._pull_image = channel.unary("PullImage", stub.PullImage, None)
        self._remove_image = channel.unary("RemoveImage", stub.RemoveImage, CALL_DEADLINE_S)
        self._image_fs_info = channel.unary("ImageFsInfo", stub.ImageFsInfo, CALL_DEADLINE_S)

    async def list_images(self, filter_by: pb.ImageFilter | None = None) -> Sequence[pb.Image]:
        return (await self._list_images(pb.ListImagesRequest(filter=filter_by))).images

    def stream_images(self, filter_by: pb.ImageFilter | None = None) -> AsyncGenerator[pb.StreamImagesResponse, None]:
        return self._stream_images(pb.StreamImagesRequest(filter=filter_by), CALL_DEADLINE_S)

    async def image_status(self, image: pb.ImageSpec) -> pb.Image | None:
        """The image as the node has it, or None where the node does not have it."""
        response = await self._image_status(pb.ImageStatusRequest(image=image))
        return response.image if response.HasField("image") else None

    async def pull_image(
        self,
        image: pb.ImageSpec,
        auth: pb.AuthConfig | None = None,
        sandbox_config: pb.PodSandboxConfig | None = None,
        *,
        deadline_s: float | None = None,
        lease: str = "",
    ) -> str:
        """Pull it and return its id. Without `deadline_s` it takes what it takes; cancelling the task ends the pull.

        What a pull under a `lease` (containerd's) brought stays after its end, however it ended.
        """
        request = pb.PullImageRequest(image=image, auth=auth, sandbox_config=sandbox_config)
        return (await self._pull_image.within(deadline_s, request, under(lease) if lease else ())).image_ref

    async def remove_image(self, image: pb.ImageSpec) -> None:
        """Remove it with all its tags. An image that is not there is removed already."""
        await self._remove_image(pb.RemoveImageRequest(image=image))

    async def image_fs_info(self) -> pb.ImageFsInfoResponse:
        return await self._image_fs_info(pb.ImageFsInfoRequest())
