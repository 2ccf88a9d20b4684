"""Turn gRPC's errors into ours, in one place, so that callers branch on a class and never on a message.

containerd answers many failures with UNKNOWN, and each generation with other codes; the few that carry a decision are
told apart here by their text.
"""

from __future__ import annotations

import re

import grpc
import grpc.aio

from agent.errors import Conflict, EdgeletError, NotFound, Permanent, Retryable

UNIMPLEMENTED = "Unimplemented"
"""`Permanent.reason` of a call that the runtime does not serve."""

_RETRYABLE = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED, grpc.StatusCode.ABORTED}
)
_NAME_IS_TAKEN = " is reserved for "
_SYSTEM_ERROR = re.compile(r"connect: | error: ")
"""What the system said stands last in gRPC's text, after the address and gRPC's own state; the form has changed."""
_STILL_STARTING = "server is not initialized yet"


def fault(method: str, endpoint: str, error: grpc.aio.AioRpcError) -> EdgeletError:
    """Our error for the failed call `method` ("RunPodSandbox"). Raise it `from error`."""
    details = " ".join((error.details() or "").split())
    match error.code():
        case code if code in _RETRYABLE:
            return Retryable(_unanswered(method, endpoint, code, details))
        case grpc.StatusCode.NOT_FOUND:
            return NotFound(f"{method}: {details}")
        case grpc.StatusCode.ALREADY_EXISTS:
            return Conflict(f"{method}: {details}")
        case grpc.StatusCode.UNIMPLEMENTED:
            return Permanent(UNIMPLEMENTED, f"the runtime at {endpoint} does not serve {method}: {details}")
        case grpc.StatusCode.UNKNOWN | grpc.StatusCode.FAILED_PRECONDITION if _NAME_IS_TAKEN in details:
            return Conflict(f"{method}: {details}")
        case grpc.StatusCode.UNKNOWN if _STILL_STARTING in details:  # containerd 1.6; later ones say UNAVAILABLE
            return Retryable(f"{method}: the runtime is still starting")
        case _:
            return Permanent("", details or f"{method} failed without a message")


def _unanswered(method: str, endpoint: str, code: grpc.StatusCode, details: str) -> str:
    if code is grpc.StatusCode.UNAVAILABLE:
        said = _SYSTEM_ERROR.split(details)[-1] if details.startswith("failed to connect") else details
        return f"{method}: the runtime at {endpoint} is unavailable: {said}"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{method}: the runtime at {endpoint} did not answer in time: {details}"
    return f"{method}: the runtime at {endpoint} gave the call up: {details}"
