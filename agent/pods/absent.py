"""Pods that a list does not name: each is asked for by itself before it ends.

In: pods of the record, or of the runtime, that nobody names any more. Out: which of them are gone, and the objects of
those that are there all the same. An empty or short answer never ends a pod; only the API server's word on that very
pod does. A few are asked for at a time, and one that is there shows that the list is wrong, so no further ones are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec
from loguru import logger

from agent.errors import EdgeletError, Retryable
from agent.model.record import PodRecord

AT_A_TIME = 8


class AsksForPods(Protocol):
    async def find_pod(self, namespace: str, name: str, uid: str) -> bytes | None:
        """The pod with that UID as the API server has it now; None: it has no such pod, and said so of this very one.

        Raises an EdgeletError where it did not answer that.
        """


class RollCall(msgspec.Struct, frozen=True):
    gone: frozenset[str]
    """UIDs."""
    there: tuple[bytes, ...] = ()
    """Pods that exist, as JSON."""
    complete: bool = True
    """Every pod was asked for and answered of."""


async def call_roll(absent: Sequence[PodRecord], api: AsksForPods) -> RollCall:
    """Ask for each pod. Raises nothing of the API server's."""
    gone: set[str] = set()
    complete = True
    for start in range(0, len(absent), AT_A_TIME):
        some = absent[start : start + AT_A_TIME]
        answers = await asyncio.gather(*(_find(record, api) for record in some))
        there = tuple(answer for answer in answers if isinstance(answer, bytes))
        gone |= {record.uid for record, answer in zip(some, answers, strict=True) if answer is None}
        complete &= not any(isinstance(answer, EdgeletError) for answer in answers)
        if there:
            return RollCall(frozenset(gone), there, complete=False)
        if any(isinstance(answer, Retryable) for answer in answers):
            # Whatever ails it, the next ones would meet it too.
            return RollCall(frozenset(gone), complete=False)
    return RollCall(frozenset(gone), complete=complete)


async def _find(record: PodRecord, api: AsksForPods) -> bytes | EdgeletError | None:
    meta = record.pod.metadata
    try:
        return await api.find_pod(meta.namespace, meta.name, meta.uid)
    except EdgeletError as error:
        logger.bind(pod=record.pod.full_name).debug("whether the pod is gone is not known: {}", error)
        return error
