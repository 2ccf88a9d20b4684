"""End what runs here and nobody wants, and tidy up what it left in the record.

In: the pods that the provider has, and those that are desired. Out: orders to the provider to end the rest, again and
again; never before every source of pods has told all of them. One that the API server has all the same is desired from
then on; one that it does not answer for waits for the next look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from loguru import logger

from agent.errors import NotFound, Permanent, Retryable
from agent.model.record import PodRecord
from agent.pods.absent import AsksForPods, RollCall, call_roll
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
        asks: AsksForPods | None,
    ) -> None:
        """`knows`: whatever becomes of this pod is under way. `forget_unreferenced` removes objects of no pod's.

        `asks`: None without an API server.
        """
        self._runner = runner
        self._desired = desired
        self._store = store
        self._knows = knows
        self._forget_unreferenced = forget_unreferenced
        self._every_s = every_s
        self._asks = asks

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
        found = await self._runner.get_pods()
        orphans = [one for one in found if self._desired.get(one.uid) is None and not self._knows(one.uid)]
        roll = RollCall(frozenset(one.uid for one in orphans))
        if orphans and self._asks is not None:
            roll = await call_roll(orphans, self._asks)
        for raw in roll.there:
            self._take_back(raw)
        for record in orphans:
            if record.uid in roll.gone:
                logger.bind(pod=record.pod.full_name).warning("nobody wants this pod any more: ending it")
                await self._runner.delete_pod(record)

    def _take_back(self, raw: bytes) -> None:
        try:
            record = PodRecord.decode(raw)
        except msgspec.DecodeError as error:
            logger.error("the API server's pod is not readable: {}", error)
            return
        logger.bind(pod=record.pod.full_name).warning("a list of the API server's lacked this pod: it goes on")
        self._desired.upsert(record)

    async def _tidy(self, wanted: frozenset[str]) -> None:
        """Remove what the record holds of pods that went while the agent was down. It can wait for the next start."""
        try:
            rows = [row for prefix in _OF_A_POD for row in await self._store.list(prefix)]
            if gone := [Delete(row.key) for row in rows if row.key.split("/")[1] not in wanted]:
                await self._store.batch(gone)
        except Retryable as error:
            logger.warning("what gone pods left stays in the record: {}", error)
