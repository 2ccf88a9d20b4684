"""A container's termination message: what it wrote to its terminationMessagePath, or the tail of its log.

In: the CRI status of a container that has ended. Out: text, the last 4096 bytes of the file, or 80 lines and 2048 bytes
of the log where the policy is FallbackToLogsOnError, the file is empty and the container failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from agent.cri._generated import api_pb2
from agent.model import labels

FILE_LIMIT_BYTES = 4096
LOG_LIMIT_BYTES = 2048
LOG_LIMIT_LINES = 80
_TAIL_READ_BYTES = 64 * 1024


async def last_words(status: api_pb2.ContainerStatus) -> str:
    """Empty where the container left none. A file that cannot be read says so in the message, as the kubelet does."""
    path = status.annotations.get(labels.CONTAINER_TERMINATION_PATH, "")
    mounted = next((m.host_path for m in status.mounts if path and m.container_path == path), "")
    fall_back = status.annotations.get(labels.HOST) == "true" or (
        status.annotations.get(labels.CONTAINER_TERMINATION_POLICY) == "FallbackToLogsOnError" and status.exit_code != 0
    )
    if not mounted and not fall_back:
        return ""
    return await asyncio.to_thread(_read, mounted, status.log_path if fall_back else "")


def _read(file: str, log: str) -> str:
    if file:
        try:
            with Path(file).open("rb") as stream:
                size = stream.seek(0, 2)
                stream.seek(max(0, size - FILE_LIMIT_BYTES))
                if written := stream.read(FILE_LIMIT_BYTES):
                    return written.decode(errors="replace")
        except FileNotFoundError:
            pass
        except OSError as error:
            return f"Error on reading termination log {file}: {error.strerror}"
    return log_tail(log) if log else ""


def log_tail(path: str) -> str:
    """The last lines of a CRI log file, their text alone."""
    try:
        with Path(path).open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - _TAIL_READ_BYTES))
            block = stream.read()
    except OSError as error:
        return f"Error on reading container log {path}: {error.strerror}"
    lines = block.splitlines(keepends=True)
    if size > _TAIL_READ_BYTES:
        lines = lines[1:]
    text = b"".join(list(_texts(lines))[-LOG_LIMIT_LINES:])
    return text[-LOG_LIMIT_BYTES:].decode(errors="replace")


def _texts(lines: list[bytes]) -> Iterator[bytes]:
    """`TIME STREAM TAG TEXT`: the text, with its newline where the tag says that the line is full."""
    for line in lines:
        parts = line.rstrip(b"\n").split(b" ", 3)
        if len(parts) == 4:
            yield parts[3] + (b"\n" if parts[2].startswith(b"F") else b"")
