"""containerd's content store, on CRI's socket: blobs as they are, as they come in, and written from outside.

Where the runtime is not containerd, every call here is Permanent("Unimplemented").
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Mapping

import grpc.aio
import msgspec
from google.protobuf.field_mask_pb2 import FieldMask

from agent.cri._generated import content_pb2
from agent.cri._generated.content_pb2_grpc import ContentStub
from agent.cri.channel import RuntimeChannel
from agent.cri.containerd import NAMESPACE, under
from agent.cri.faults import fault
from agent.cri.runtime import CALL_DEADLINE_S
from agent.errors import NotFound, Permanent


class BlobInfo(msgspec.Struct, frozen=True):
    digest: str
    size: int
    """Bytes."""
    created_at: float
    """Unix seconds by the machine's clock."""
    labels: Mapping[str, str]


class Ingest(msgspec.Struct, frozen=True):
    """A write that is not finished."""

    offset: int
    """Bytes that are there."""
    total: int
    """0: nobody said."""


class ContentStore:
    def __init__(self, channel: RuntimeChannel) -> None:
        self._endpoint = channel.endpoint
        self._stub = ContentStub(channel.grpc)

    async def info(self, digest: str) -> BlobInfo | None:
        """None: it is not there. Raises Retryable, Permanent."""
        request = content_pb2.InfoRequest(digest=digest)
        try:
            found = (await self._stub.Info(request, timeout=CALL_DEADLINE_S, metadata=NAMESPACE)).info
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise fault("Content.Info", self._endpoint, error) from error
        return BlobInfo(found.digest, found.size, found.created_at.ToNanoseconds() / 1e9, dict(found.labels))

    async def read(self, digest: str, limit: int) -> bytes:
        """A whole blob of at most `limit` bytes. Raises NotFound, Retryable, Permanent."""
        info = await self.info(digest)
        if info is None:
            raise NotFound(f"blob {digest} is not there")
        if info.size > limit:
            raise Permanent("", f"blob {digest} has {info.size} bytes, more than {limit}")
        request = content_pb2.ReadContentRequest(digest=digest)
        answers = self._stub.Read(request, timeout=CALL_DEADLINE_S, metadata=NAMESPACE)
        try:
            return b"".join([answer.data async for answer in answers])
        except grpc.aio.AioRpcError as error:
            raise fault("Content.Read", self._endpoint, error) from error

    async def ingests(self) -> Mapping[str, Ingest]:
        """All writes that are not finished, by name. Raises Retryable, Permanent."""
        request = content_pb2.ListStatusesRequest()
        try:
            answer = await self._stub.ListStatuses(request, timeout=CALL_DEADLINE_S, metadata=NAMESPACE)
        except grpc.aio.AioRpcError as error:
            raise fault("Content.ListStatuses", self._endpoint, error) from error
        return {one.ref: Ingest(one.offset, one.total) for one in answer.statuses}

    async def label(self, digest: str, labels: Mapping[str, str]) -> None:
        """Add labels to a blob; others stay. Raises NotFound, Retryable, Permanent."""
        request = content_pb2.UpdateRequest(
            info=content_pb2.Info(digest=digest, labels=labels),
            update_mask=FieldMask(paths=[f"labels.{name}" for name in labels]),
        )
        try:
            await self._stub.Update(request, timeout=CALL_DEADLINE_S, metadata=NAMESPACE)
        except grpc.aio.AioRpcError as error:
            raise fault("Content.Update", self._endpoint, error) from error

    async def write(self, ref: str, pieces: AsyncIterable[bytes], total: int, expected: str, lease: str) -> str:
        """Write a blob of `total` bytes; one that is there is fine. Its digest, where containerd or `expected` says it.

        `ref` names the write; `expected` is the digest that it must have, empty: any. Raises Retryable, and Permanent
        where the content is not what was expected.
        """
        call = self._stub.Write(None, metadata=(*NAMESPACE, *under(lease)))
        offset = 0

        async def send(action: content_pb2.WriteAction, data: bytes = b"") -> str:
            """Each message has its answer before the next is sent: a refusal never overtakes one."""
            request = content_pb2.WriteContentRequest(
                action=action, ref=ref, total=total, expected=expected, offset=offset, data=data
            )
            try:
                await call.write(request)
                if isinstance(answer := await call.read(), content_pb2.WriteContentResponse):
                    return answer.digest
            except asyncio.InvalidStateError:
                pass  # the call is over already
            nothing, details = grpc.aio.Metadata(), await call.details()
            raise grpc.aio.AioRpcError(await call.code(), nothing, nothing, details, details)

        try:
            async for piece in pieces:
                await send(content_pb2.WRITE, piece)
                offset += len(piece)
            return await send(content_pb2.COMMIT) or expected
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                return expected
            raise fault("Content.Write", self._endpoint, error) from error
        finally:
            call.cancel()
