"""What a reader of a container's log asks for: one resolved value, whoever asked."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class LogStream(StrEnum):
    """PodLogOptions.stream."""

    ALL = "All"
    STDOUT = "Stdout"
    STDERR = "Stderr"


class LogOptions(msgspec.Struct, frozen=True):
    """PodLogOptions with sinceSeconds and sinceTime resolved to one moment."""

    follow: bool = False
    previous: bool = False
    """The log of the container that ran before the present one."""
    timestamps: bool = False
    tail_lines: int | None = None
    """The last lines only, counted before any other filter; None: all."""
    limit_bytes: int | None = None
    """End after this many bytes of output; None: no limit."""
    since_ns: int | None = None
    """Unix nanoseconds: lines older than this are left out."""
    stream: LogStream = LogStream.ALL
