"""Errors of the machine's own disk, in our terms: full, read-only or broken today, perhaps well tomorrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from agent.errors import Retryable


@contextmanager
def on_disk(what: str) -> Iterator[None]:
    """Raises Retryable, beginning with `what`, for an OSError inside."""
    try:
        yield
    except OSError as error:
        raise Retryable(f"{what}: {error}") from error
