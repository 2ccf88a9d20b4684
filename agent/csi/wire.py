"""One gRPC call to a plugin's unix socket, or one stream from it, on a connection of its own.

Calls are rare, and a driver is replaced by a new process at the same path: a connection that is kept would only have
to be mended. A failure is a DriverError in the words of the gRPC status, as kubelets show it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from typing import Final, TypeVar

import grpc
import grpc.aio

from agent.cri.channel import MAX_MESSAGE_BYTES
from agent.model.csi import DriverError

Request = TypeVar("Request")
Response = TypeVar("Response")
Method = Callable[[grpc.aio.Channel], grpc.aio.UnaryUnaryMultiCallable[Request, Response]]
"""Of a channel the call that is to be made on it."""
StreamMethod = Callable[[grpc.aio.Channel], grpc.aio.UnaryStreamMultiCallable[Request, Response]]

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.default_authority", "localhost"),
    # Connections to one path are shared otherwise, and with them the pause after one that failed.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_http_proxy", 0),
)
_UNCERTAIN: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
    }
)
"""After these the driver may have done it, or be about to."""


async def call(socket_path: str, method: Method[Request, Response], request: Request, deadline_s: float) -> Response:
    """Raises DriverError."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    async with grpc.aio.insecure_channel(f"unix://{socket_path}", options=_OPTIONS) as channel:
        try:
            return await method(channel)(request, timeout=deadline_s)
        except grpc.aio.AioRpcError as error:
            raise _driver_error(error) from error


async def stream(
    socket_path: str, method: StreamMethod[Request, Response], request: Request
) -> AsyncGenerator[Response, None]:
    """What comes, for as long as the plugin sends. Raises DriverError where it breaks off."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    async with grpc.aio.insecure_channel(f"unix://{socket_path}", options=_OPTIONS) as channel:
        try:
            async for message in method(channel)(request):
                yield message
        except grpc.aio.AioRpcError as error:
            raise _driver_error(error) from error


def _driver_error(error: grpc.aio.AioRpcError) -> DriverError:
    code = error.code()
    details = " ".join((error.details() or "").split())
    return DriverError(
        f"rpc error: code = {go_name(code)} desc = {details}", final=code not in _UNCERTAIN, code=code.name
    )


def go_name(code: grpc.StatusCode) -> str:
    """As gRPC for Go writes it, which is what users search for: `DeadlineExceeded`."""
    match code:
        case grpc.StatusCode.OK:
            return "OK"
        case grpc.StatusCode.CANCELLED:
            return "Canceled"
        case _:
            return "".join(word.capitalize() for word in code.name.split("_"))
