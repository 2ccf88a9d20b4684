"""Give the runtime an image that comes from no registry: containerd's content store and image names, on CRI's socket.

In: small blobs and the name they get. Out: an image that CRI finds a moment later: it hears of the name and takes the
image over by itself. CRI has no call for this; where the runtime is not containerd, it is Permanent("Unimplemented").
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import grpc.aio
import msgspec
from google.protobuf.field_mask_pb2 import FieldMask

from agent.cri._generated import content_pb2, images_pb2
from agent.cri._generated.images_pb2_grpc import ImagesStub
from agent.cri.channel import RuntimeChannel
from agent.cri.containerd import NAMESPACE
from agent.cri.faults import fault
from agent.cri.runtime import CALL_DEADLINE_S
from agent.errors import Conflict, Permanent


class Blob(msgspec.Struct, frozen=True):
    media_type: str
    content: bytes
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    """`containerd.io/gc.ref.content.*` keep the blobs that they name from being collected."""

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"


class Target(msgspec.Struct, frozen=True):
    """A manifest, or an index of them, as descriptors name it."""

    media_type: str
    digest: str
    size: int


class ImageImport:
    def __init__(self, channel: RuntimeChannel) -> None:
        self._endpoint = channel.endpoint
        # A stream both ways by its definition. Nothing but one request is ever sent, and so it goes out as a whole: a
        # refusal that overtakes a message is lost otherwise, and gRPC tells an error of its own instead.
        self._write = channel.grpc.unary_stream(
            "/containerd.services.content.v1.Content/Write",
            request_serializer=content_pb2.WriteContentRequest.SerializeToString,
            response_deserializer=content_pb2.WriteContentResponse.FromString,
        )
        self._images = ImagesStub(channel.grpc)

    async def write(self, blob: Blob) -> None:
        """Put a blob into the content store; one that is there is fine. Raises Retryable, Permanent."""
        request = content_pb2.WriteContentRequest(
            action=content_pb2.COMMIT,
            ref=f"edgelet-{blob.digest}",
            total=len(blob.content),
            expected=blob.digest,
            data=blob.content,
            labels=blob.labels,
        )
        call = self._write(request, timeout=CALL_DEADLINE_S, metadata=NAMESPACE)
        try:
            async for answer in call:
                if answer.digest not in ("", blob.digest):
                    raise Permanent("", f"the runtime stored {answer.digest} for {blob.digest}")
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise fault("Content.Write", self._endpoint, error) from error

    async def name(self, name: str, target: Blob, labels: Mapping[str, str]) -> None:
        """Let the image `name` mean the manifest `target`; said anew where it does already, for CRI to look again."""
        await self.name_as(name, Target(target.media_type, target.digest, len(target.content)), labels)

    async def name_as(self, name: str, target: Target, labels: Mapping[str, str]) -> None:
        """The same with a blob that is there already."""
        descriptor = images_pb2.Descriptor(media_type=target.media_type, digest=target.digest, size=target.size)
        image = images_pb2.Image(name=name, labels=labels, target=descriptor)
        try:
            await self._create(image)
        except Conflict:
            await self._update(image)

    async def label(self, name: str, labels: Mapping[str, str]) -> bool:
        """Have these labels on the image `name`, others stay; empty: without it. False: there is no such image.

        Raises Retryable, Permanent.
        """
        try:
            request = images_pb2.GetImageRequest(name=name)
            found = (await self._images.Get(request, timeout=CALL_DEADLINE_S, metadata=NAMESPACE)).image
            if any(found.labels.get(key, "") != value for key, value in labels.items()):
                wanted = images_pb2.Image(name=name, labels=labels, target=found.target)
                mask = FieldMask(paths=[f"labels.{key}" for key in labels])
                update = images_pb2.UpdateImageRequest(image=wanted, update_mask=mask)
                await self._images.Update(update, timeout=CALL_DEADLINE_S, metadata=NAMESPACE)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise fault("Images.Update", self._endpoint, error) from error
        return True

    async def _create(self, image: images_pb2.Image) -> None:
        request = images_pb2.CreateImageRequest(image=image)
        try:
            await self._images.Create(request, timeout=CALL_DEADLINE_S, metadata=NAMESPACE)
        except grpc.aio.AioRpcError as error:
            raise fault("Images.Create", self._endpoint, error) from error

    async def _update(self, image: images_pb2.Image) -> None:
        request = images_pb2.UpdateImageRequest(image=image, update_mask=FieldMask(paths=["target"]))
        try:
            await self._images.Update(request, timeout=CALL_DEADLINE_S, metadata=NAMESPACE)
        except grpc.aio.AioRpcError as error:
            raise fault("Images.Update", self._endpoint, error) from error
