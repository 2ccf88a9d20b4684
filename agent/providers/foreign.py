"""The boundary to a provider's code: whatever it raises is its failure, not the agent's end."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from loguru import logger

from agent.errors import EdgeletError, Retryable

T = TypeVar("T")


async def asked(call: Awaitable[T]) -> T:
    """The provider's answer. Raises errors of ours only: another is reported with its traceback, and Retryable."""
    try:
        return await call
    except EdgeletError:
        raise
    except Exception as error:  # the boundary
        logger.opt(exception=error).error("the provider raised {}: {}", type(error).__name__, error)
        raise Retryable(f"{type(error).__name__}: {error}") from error
