"""The contract's optional parts for people at a terminal: exec, attach and port-forward. All are found by shape.

A provider takes one of two ways. It names the URL of a streaming server that speaks the Kubernetes protocols itself
(StreamsByUrl, as container runtimes have one), or it takes plain byte streams (the others) and the agent speaks SPDY
and WebSocket with the client. A session whose client goes away is cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, runtime_checkable

import msgspec


class Streams(msgspec.Struct, frozen=True):
    """What a client asked to be connected to. With a terminal there is no stderr: it comes with stdout."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


class TerminalSize(msgspec.Struct, frozen=True):
    """In characters."""

    width: int
    height: int


class CommandOutput(msgspec.Struct, frozen=True):
    exit_code: int
    output: bytes
    """stdout, then stderr."""


class ByteReader(Protocol):
    async def read(self, limit: int = 65536) -> bytes:
        """What has come, at most `limit` bytes; b"" at the end."""


class ByteWriter(Protocol):
    async def write(self, data: bytes) -> None:
        """Returns when there is room for more. Raises ConnectionError when the client has gone."""


class ByteStream(ByteReader, ByteWriter, Protocol):
    """Both ways of one forwarded connection."""

    async def write_eof(self) -> None:
        """Nothing more will be written; reading goes on."""


class AttachIO(Protocol):
    """What a command is connected to; None where the client did not ask for the stream."""

    @property
    def tty(self) -> bool: ...
    @property
    def stdin(self) -> ByteReader | None: ...
    @property
    def stdout(self) -> ByteWriter | None: ...
    @property
    def stderr(self) -> ByteWriter | None: ...

    def resizes(self) -> AsyncIterator[TerminalSize]:
        """Each size that the client's terminal takes, the first one included. Ends with the session."""


@runtime_checkable
class RunsInContainer(Protocol):
    async def run_in_container(
        self, namespace: str, pod: str, container: str, command: Sequence[str], io: AttachIO
    ) -> int:
        """Run a command to its end: its exit code. Raises NotFound, Permanent or Retryable where it cannot be run."""


@runtime_checkable
class AttachesToContainer(Protocol):
    async def attach_to_container(self, namespace: str, pod: str, container: str, io: AttachIO) -> int:
        """Connect to the container's own process until it ends: its exit code. Raises as `run_in_container` does."""


@runtime_checkable
class ForwardsPorts(Protocol):
    async def port_forward(self, namespace: str, pod: str, port: int, connection: ByteStream) -> None:
        """Carry one connection to a port of the pod, until it ends. Raises as `run_in_container` does."""


@runtime_checkable
class RunsToEnd(Protocol):
    async def run_to_end(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> CommandOutput:
        """Run a command that reads nothing, and give its whole output. Where it is missing, `run_in_container` serves.

        Raises as that does.
        """


@runtime_checkable
class StreamsByUrl(Protocol):
    """The URLs are http://, good for one session each. All raise as `run_in_container` does."""

    async def exec_url(
        self, namespace: str, pod: str, container: str, command: Sequence[str], streams: Streams
    ) -> str: ...

    async def attach_url(self, namespace: str, pod: str, container: str, streams: Streams) -> str: ...

    async def port_forward_url(self, namespace: str, pod: str, ports: Sequence[int]) -> str: ...
