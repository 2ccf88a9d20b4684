"""Rows of the record as values, for parts that read all of their own at the start."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from loguru import logger

from agent.store.base import Store

T = TypeVar("T")


async def read_rows(store: Store, prefix: str, form: type[T], what: str) -> dict[str, T]:
    """By what follows `prefix` in the key. Raises Retryable.

    A row that is not of that form, another version's say, is left alone: it is not deleted, and said in the log, where
    `what` names what it should be ("admission").
    """
    found: dict[str, T] = {}
    for row in await store.list(prefix):
        try:
            found[row.key.removeprefix(prefix)] = msgspec.json.decode(row.value, type=form)
        except msgspec.DecodeError as error:
            logger.warning("record row {} is no {} and is left alone: {}", row.key, what, error)
    return found
