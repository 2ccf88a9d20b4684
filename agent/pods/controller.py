"""Bring desired pods to their provider and the provider's news to the publisher.

In: DesiredChanges (durable) and PodUpdates. Out: calls of the provider contract, retried for ever with a capped
backoff, and statuses to publish. One task a pod, so that a slow pod holds nobody up; it never decides what runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from loguru import logger

from agent.errors import Permanent, Retryable
from agent.model.objects import ObjectReference
from agent.model.record import PodRecord
from agent.pods.desired import DesiredChange
from agent.pods.ports import Events
from agent.pods.publish import PodUpdateLike

RETRY_INITIAL_S = 1.0
RETRY_MAXIMUM_S = 60.0


class PodProvider(Protocol):
    """The part of the provider contract that moves pods."""

    async def create_pod(self, record: PodRecord) -> None: ...
    async def update_pod(self, record: PodRecord) -> None: ...
    async def delete_pod(self, record: PodRecord) -> None: ...


class PodController:
    def __init__(self, provider: PodProvider, events: Events, publish: Callable[[PodUpdateLike], None]) -> None:
        self._provider = provider
        self._events = events
        self._publish = publish
        self._orders: dict[str, DesiredChange] = {}
        self._busy: set[str] = set()
        self._given: set[str] = set()
        self._removed: set[str] = set()
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.get_running_loop().create_future()

    def desired_changed(self, change: DesiredChange) -> None:
        """Take one durable change; the newest of a pod wins. Returns at once."""
        record = change.record or change.was
        assert record is not None
        self._orders[record.uid] = change
        if record.uid not in self._busy:
            self._busy.add(record.uid)
            self._tasks.create_task(self._bring(record.uid), name=f"bring {record.pod.full_name}")

    def pod_updated(self, update: PodUpdateLike) -> None:
        """Take one piece of news from the provider."""
        uid = update.record.uid
        if uid in self._removed:
            # Gone from the API or its manifest: its end has no reader.
            if update.gone:
                self._removed.discard(uid)
                self._given.discard(uid)
            return
        if update.gone:
            self._given.discard(uid)
        self._publish(update)

    def knows(self, uid: str) -> bool:
        """Whether the provider has this pod from here: whatever becomes of it is under way."""
        return uid in self._given

    async def _bring(self, uid: str) -> None:
        delay = RETRY_INITIAL_S
        try:
            while change := self._orders.pop(uid, None):
                try:
                    await self._call(uid, change)
                    delay = RETRY_INITIAL_S
                except (Retryable, Permanent) as error:
                    self._say_failed(change, str(error))
                    self._orders.setdefault(uid, change)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, RETRY_MAXIMUM_S)
        finally:
            self._busy.discard(uid)

    async def _call(self, uid: str, change: DesiredChange) -> None:
        record = change.record
        if record is None:
            assert change.was is not None
            if uid in self._given:
                self._removed.add(uid)
                await self._provider.delete_pod(change.was)
        elif record.is_terminating:
            self._given.add(uid)
            await self._provider.delete_pod(record)
        elif uid in self._given:
            await self._provider.update_pod(record)
        else:
            self._given.add(uid)
            await self._provider.create_pod(record)

    def _say_failed(self, change: DesiredChange, message: str) -> None:
        record = change.record or change.was
        assert record is not None
        deleting = change.record is None or record.is_terminating
        reason = "ProviderDeleteFailed" if deleting else "ProviderCreateFailed"
        logger.bind(pod=record.pod.full_name).warning("{}: {}", reason, message)
        self._events.record(ObjectReference.of(record.pod), "Warning", reason, message)
