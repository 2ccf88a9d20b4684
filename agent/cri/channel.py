"""One gRPC channel to the runtime's unix socket, and the calls made on it.

A call is an awaitable function with a deadline that raises only our errors. The wrapper is one function deep, for
every pod start goes through it a dozen times. A lost runtime fails calls at once (nothing queues up) and is found
again within a second of its return.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import time
from collections.abc import AsyncGenerator
from typing import Final, Generic, TypeVar

import grpc
import grpc.aio

from agent import own_metrics
from agent.cri.faults import fault
from agent.errors import ConfigError, Retryable

Request = TypeVar("Request")
Response = TypeVar("Response")

MAX_MESSAGE_BYTES: Final = 16 << 20
"""As the kubelet's and containerd's own limit."""

_SCHEME: Final = "unix://"
_SUN_PATH_BYTES: Final = 107  # sockaddr_un holds 108 with its final NUL

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # The default would put the percent-encoded path into :authority, which Go's HTTP/2 server refuses.
    ("grpc.default_authority", "localhost"),
    # gRPC's backoff grows to two minutes; a local socket costs nothing to try.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # What it really sets is how long one attempt may take: a busy machine needs more than a moment for the handshake.
    ("grpc.min_reconnect_backoff_ms", 5000),
    # Retries are the caller's, and no DNS names a service config for a socket.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_http_proxy", 0),
    # No keepalive pings (gRPC's default, said here because it is meant): a dead peer closes a unix socket at once,
    # a hung one meets the deadlines, and Go's server ends connections that ping more often than every five minutes.
)


def socket_path(endpoint: str) -> str:
    """The socket's absolute path. Raises ConfigError for anything but `unix:///absolute/path`."""
    path = endpoint.removeprefix(_SCHEME)
    if not endpoint.startswith(_SCHEME) or not path.startswith("/") or "\0" in path or path.endswith("/"):
        hint = "write it as unix:///run/containerd/containerd.sock"
        raise ConfigError(f"container runtime endpoint {endpoint!r} is not a unix socket: {hint}")
    if len(os.fsencode(path)) > _SUN_PATH_BYTES:
        raise ConfigError(
            f"container runtime endpoint {endpoint!r} is longer than a socket's path may be ({_SUN_PATH_BYTES})"
        )
    return path


def check_socket(endpoint: str) -> None:
    """Tell what keeps us from the socket: ConfigError if waiting cannot help, Retryable if it is not there yet."""
    path = socket_path(endpoint)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise Retryable(f"no container runtime listens at {endpoint}: no such file (is containerd running?)") from None
    except PermissionError:
        raise ConfigError(f"container runtime endpoint {endpoint}: permission denied (run as root)") from None
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"container runtime endpoint {endpoint} is a file, not a socket")
    if not os.access(path, os.R_OK | os.W_OK):
        raise ConfigError(f"container runtime endpoint {endpoint}: permission denied (run as root)")


class Unary(Generic[Request, Response]):
    """One method of a service: `await call(request)` answers, or raises ours after at most `deadline_s` seconds."""

    __slots__ = ("_call", "_deadline_s", "_endpoint", "_method", "_operation")

    def __init__(
        self,
        endpoint: str,
        method: str,
        call: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        deadline_s: float | None,
    ) -> None:
        self._endpoint = endpoint
        self._operation = operation(method)
        self._method = method
        self._call = call
        self._deadline_s = deadline_s

    async def __call__(self, request: Request) -> Response:
        return await self.within(self._deadline_s, request)

    async def within(
        self, deadline_s: float | None, request: Request, metadata: tuple[tuple[str, str], ...] = ()
    ) -> Response:
        """The same with another deadline. None: no deadline, the caller's task is cancelled instead."""
        began = time.monotonic()
        failed = True
        try:
            answer = await self._call(request, timeout=deadline_s, metadata=metadata or None)
            failed = False
            return answer
        except grpc.aio.AioRpcError as error:
            raise fault(self._method, self._endpoint, error) from error
        except asyncio.CancelledError:
            raise_if_closed(self._method, self._endpoint)
            raise
        finally:
            _count(self._operation, time.monotonic() - began, failed)


def operation(method: str) -> str:
    """What a kubelet's metrics call it: RunPodSandbox is run_podsandbox."""
    words = re.sub(r"(?<!^)(?=[A-Z])", "_", method).lower().replace("pod_sandbox", "podsandbox")
    return "update_container" if words == "update_container_resources" else words


def _count(operation: str, seconds: float, failed: bool) -> None:
    own_metrics.RUNTIME_OPERATIONS.inc(operation)
    own_metrics.RUNTIME_DURATION.observe(seconds, operation)
    if failed:
        own_metrics.RUNTIME_ERRORS.inc(operation)
    match operation:
        case "run_podsandbox":
            (own_metrics.STARTED_PODS_ERRORS if failed else own_metrics.STARTED_PODS).inc()
        case "start_container":
            (own_metrics.STARTED_CONTAINERS_ERRORS if failed else own_metrics.STARTED_CONTAINERS).inc()


class Streaming(Generic[Request, Response]):
    """One method that answers with many messages, until the runtime ends the stream or the iterator is closed."""

    __slots__ = ("_call", "_endpoint", "_method")

    def __init__(self, endpoint: str, method: str, call: grpc.aio.UnaryStreamMultiCallable[Request, Response]) -> None:
        self._endpoint = endpoint
        self._method = method
        self._call = call

    async def __call__(self, request: Request, deadline_s: float | None = None) -> AsyncGenerator[Response, None]:
        call = self._call(request, timeout=deadline_s)
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise fault(self._method, self._endpoint, error) from error
        except asyncio.CancelledError:
            raise_if_closed(self._method, self._endpoint)
            raise
        finally:
            call.cancel()


def raise_if_closed(method: str, endpoint: str) -> None:
    """gRPC ends the open calls of a closed channel by cancelling them: to a TaskGroup as if nothing had happened."""
    task = asyncio.current_task()
    if task is not None and not task.cancelling():
        raise Retryable(f"{method}: the channel to {endpoint} was closed")


class RuntimeChannel:
    """The connection. Made on the running event loop; `async with` closes it and ends its open calls."""

    def __init__(self, endpoint: str) -> None:
        socket_path(endpoint)
        # gRPC's own lines on stderr (a GOAWAY, say) repeat what its errors tell. Read when the first channel is made.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        self.endpoint: Final = endpoint
        self.grpc: Final[grpc.aio.Channel] = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)

    def unary(
        self, method: str, call: grpc.aio.UnaryUnaryMultiCallable[Request, Response], deadline_s: float | None
    ) -> Unary[Request, Response]:
        return Unary(self.endpoint, method, call, deadline_s)

    def streaming(
        self, method: str, call: grpc.aio.UnaryStreamMultiCallable[Request, Response]
    ) -> Streaming[Request, Response]:
        return Streaming(self.endpoint, method, call)

    async def close(self) -> None:
        await self.grpc.close(None)

    async def __aenter__(self) -> RuntimeChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
