"""What came in from a registry: containerd's content store on CRI's socket, for CRI tells nothing of a pull that runs.

containerd labels each blob of a pull, the manifest first, with the host that the image's name has, mirrors or not.
In: a registry and a time. Out: whether anything of it came since. Where the runtime is not containerd, it is
Permanent("Unimplemented").
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

import grpc
import grpc.aio

from agent.cri._generated import content_pb2
from agent.cri.channel import RuntimeChannel
from agent.cri.containerd import NAMESPACE
from agent.cri.faults import fault
from agent.cri.runtime import CALL_DEADLINE_S

_LABEL: Final = "containerd.io/distribution.source."
_PORT: Final = re.compile(r":[0-9]+$")


def _without_port(registry: str) -> str:
    """As containerd writes it into the label: an IPv6 address has no brackets."""
    return _PORT.sub("", registry).removeprefix("[").removesuffix("]")


class Arrivals:
    def __init__(self, channel: RuntimeChannel, wall: Callable[[], float] = time.time) -> None:
        self._endpoint = channel.endpoint
        self._wall = wall
        self._list = channel.grpc.unary_stream(
            "/containerd.services.content.v1.Content/List",
            request_serializer=content_pb2.ListContentRequest.SerializeToString,
            response_deserializer=content_pb2.ListContentResponse.FromString,
        )
        self._info = channel.grpc.unary_unary(
            "/containerd.services.content.v1.Content/Info",
            request_serializer=content_pb2.InfoRequest.SerializeToString,
            response_deserializer=content_pb2.InfoResponse.FromString,
        )

    async def within(self, seconds: float, registry: str) -> bool:
        """Whether a blob of `registry` (as in an image's name) came in the last `seconds`; one of another port counts.

        Raises Retryable, Permanent.
        """
        since = self._wall() - seconds
        request = content_pb2.ListContentRequest(filters=[f'labels."{_LABEL}{_without_port(registry)}"'])
        call = self._list(request, timeout=CALL_DEADLINE_S, metadata=NAMESPACE)
        try:
            async for answer in call:
                for listed in answer.info:
                    info = listed if listed.updated_at.seconds > 0 else await self._whole(listed)
                    if info.updated_at.ToNanoseconds() / 1e9 >= since:
                        return True
        except grpc.aio.AioRpcError as error:
            raise fault("Content.List", self._endpoint, error) from error
        finally:
            call.cancel()
        return False

    async def _whole(self, listed: content_pb2.Info) -> content_pb2.Info:
        """containerd 1.6 leaves out of a list when a blob was updated."""
        request = content_pb2.InfoRequest(digest=listed.digest)
        try:
            answer: content_pb2.InfoResponse = await self._info(request, timeout=CALL_DEADLINE_S, metadata=NAMESPACE)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:  # it went meanwhile
                return listed
            raise
        return answer.info
