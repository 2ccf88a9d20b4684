"""End what runs here and nobody wants, and tidy up what it left in the record.

In: the pods that the provider has, and those that are desired. Out: orders to the provider to end the rest, again and
again; never before every source of pods has told all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from loguru import logger

from agent.errors import NotFound, Permanent, Retryable
from agent.model.record import PodRecord
from agent.pods.desired import DesiredPods
from agent.store.base import Delete, Store

_OF_A_POD = ("status/", "tokens/", "userns/")


class Runner(Protocol):
    """The part of the provider contract that finds and ends pods."""

    async def get_pods(self) -> tuple[PodRecord, ...]: ...
    async def delete_pod(self, record: PodRecord) -> None: ...


class Orphans:
    def __init__(
        self,
        runner: Runner,
        desired: DesiredPods,
        store: Store,
        knows: Callable[[str], bool],
        forget_unreferenced: Callable[[], Awaitable[None]] | None,
        every_s: float,
    ) -> None:
        """`knows`: whatever becomes of this pod is under way. `forget_unreferenced` removes objects of no pod's."""
        self._runner = runner
        self._desired = desired
        self._store = store
        self._knows = knows
        self._forget_unreferenced = forget_unreferenced
        self._every_s = every_s

    async def sweep(self) -> None:
        """For as long as the agent lives: only once every origin has told all its pods."""
        await self._desired.verified.wait()
        await self._tidy(frozenset(record.uid for record in self._desired.all()))
        while True:
            try:
                await self._end()
            except (Retryable, Permanent, NotFound) as error:
                logger.warning("pods that nobody wants are not ended yet: {}", error)
            await asyncio.sleep(self._every_s)
            # By now every pod has said what it refers to.
            if self._forget_unreferenced is not None:
                try:
                    await self._forget_unreferenced()
                except Retryable as error:
                    logger.warning("what no pod refers to stays in the record: {}", error)

    async def _end(self) -> None:
        for record in await self._runner.get_pods():
            if self._desired.get(record.uid) is None and not self._knows(record.uid):
                logger.bind(pod=record.pod.full_name).warning("nobody wants this pod any more: ending it")
                await self._runner.delete_pod(record)

    async def _tidy(self, wanted: frozenset[str]) -> None:
        """Remove what the record holds of pods that went while the agent was down. It can wait for the next start."""
        try:
            rows = [row for prefix in _OF_A_POD for row in await self._store.list(prefix)]
            if gone := [Delete(row.key) for row in rows if row.key.split("/")[1] not in wanted]:
                await self._store.batch(gone)
        except Retryable as error:
            logger.warning("what gone pods left stays in the record: {}", error)
