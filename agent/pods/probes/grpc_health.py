"""One gRPC health check (grpc.health.v1.Health/Check), as a probe makes it: without TLS, on a new connection.

The two messages have one field each, so they are read and written here by hand instead of from generated code.
"""

from __future__ import annotations

import asyncio
from typing import Final

import grpc

from agent.pods.probes.tally import Outcome, Result
from agent.pods.probes.target import go_duration

_METHOD: Final = "/grpc.health.v1.Health/Check"
_STATUS: Final = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_OPTIONS: Final = (
    ("grpc.primary_user_agent", "kube-probe/1.36"),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
)


async def check(address: str, service: str, timeout_s: float) -> Outcome:
    """SUCCESS where the service says SERVING within the time, else FAILURE with the reason."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        try:
            async with asyncio.timeout_at(deadline):
                await channel.channel_ready()
        except TimeoutError:
            within = f"within {go_duration(timeout_s)}: context deadline exceeded"
            return _failure(f'timeout: failed to connect service "{address}" {within}')
        call = channel.unary_unary(_METHOD, request_serializer=_request, response_deserializer=_status)
        try:
            status = await call(service, timeout=max(0.001, deadline - loop.time()))
        except grpc.aio.AioRpcError as error:
            return _failure(_why(error, timeout_s))
    if status != 1:
        return _failure(f'service unhealthy (responded with "{_STATUS.get(status, status)}")')
    return Outcome(Result.SUCCESS, "service healthy")


def _why(error: grpc.aio.AioRpcError, timeout_s: float) -> str:
    match error.code():
        case grpc.StatusCode.UNIMPLEMENTED:
            return (
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): "
                f"{error.details()}"
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"timeout: health rpc did not complete within {go_duration(timeout_s)}"
        case code:
            name = "Canceled" if code is grpc.StatusCode.CANCELLED else code.name.title().replace("_", "")
            return f"error: health rpc probe failed: rpc error: code = {name} desc = {error.details()}"


def _failure(output: str) -> Outcome:
    return Outcome(Result.FAILURE, output)


def _request(service: str) -> bytes:
    """HealthCheckRequest: `service` is field 1, a string."""
    text = service.encode()
    return b"\x0a" + _varint(len(text)) + text if text else b""


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _status(response: bytes) -> int:
    """HealthCheckResponse: `status` is field 1, an enum below 128; an absent one is 0."""
    return response[1] if len(response) >= 2 and response[0] == 0x08 else 0
