"""Bring desired pods to their provider and the provider's news to the publisher.

In: DesiredChanges (durable) and PodUpdates. Out: calls of the provider contract, retried for ever with a capped
backoff, statuses to publish, and the events that virtual-kubelet's users know, each once a pod. One task a pod, so that
a slow pod holds nobody up; it never decides what runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

import msgspec
from loguru import logger

from agent.errors import NotFound, Permanent, Retryable
from agent.model.objects import ObjectReference
from agent.model.pod import Pod
from agent.model.record import Origin, PodRecord
from agent.model.status import Phase, PodStatus
from agent.pods.desired import DesiredChange
from agent.pods.ports import Events
from agent.pods.publish import PodUpdateLike

RETRY_INITIAL_S = 1.0
RETRY_MAXIMUM_S = 60.0
FAILED_REASON = "ProviderFailed"
_CREATED = ("ProviderCreateSuccess", "Create pod in provider successfully")
_UPDATED = ("ProviderUpdateSuccess", "Update pod in provider successfully")


class PodProvider(Protocol):
    """The part of the provider contract that moves pods."""

    async def create_pod(self, record: PodRecord) -> None: ...
    async def update_pod(self, record: PodRecord) -> None: ...
    async def delete_pod(self, record: PodRecord) -> None: ...


class PodController:
    def __init__(
        self,
        provider: PodProvider,
        events: Events,
        publish: Callable[[PodUpdateLike], None],
        *,
        says_success: bool = True,
        status_is_update: bool = False,
    ) -> None:
        """`says_success`: events also of what went well; False where the provider has events of its own for that.

        `status_is_update`: the provider is given a pod anew also when nothing but its status changed, and takes that.
        """
        self._says_success = says_success
        self._status_is_update = status_is_update
        self._provider = provider
        self._events = events
        self._publish = publish
        self._orders: dict[str, DesiredChange] = {}
        self._busy: dict[str, asyncio.Event] = {}
        """By UID: a task brings its orders; the event says that a new one came."""
        self._given: set[str] = set()
        """The provider was told of these pods, perhaps without success: it must hear of their end."""
        self._created: dict[str, Pod] = {}
        """As the provider was last told of them."""
        self._heard: set[str] = set()
        """The provider has told a status of these."""
        self._said: dict[str, set[tuple[str, str]]] = {}
        """By UID: events (reason and message) that were told. A later start tells them anew if they happen anew."""
        self._removed: set[str] = set()
        self._ended: set[str] = set()
        """Their end was told and their objects are about to go: echoes of it must not bring them back."""
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.get_running_loop().create_future()

    def desired_changed(self, change: DesiredChange) -> None:
        """Take one durable change; the newest of a pod wins. Returns at once."""
        record = change.record or change.was
        assert record is not None
        self._orders[record.uid] = change
        if busy := self._busy.get(record.uid):
            busy.set()
        else:
            self._busy[record.uid] = asyncio.Event()
            self._tasks.create_task(self._bring(record.uid), name=f"bring {record.pod.full_name}")

    @property
    def waiting(self) -> int:
        """Pods of which the provider has not taken the newest change yet."""
        return len(self._busy)

    def pod_updated(self, update: PodUpdateLike) -> None:
        """Take one piece of news from the provider."""
        uid = update.record.uid
        if uid in self._removed:
            if update.gone:
                self._forget(uid)
            # Gone from the API: its end has no reader. That of a manifest's pod has: its mirror stays until then.
            if update.record.origin is not Origin.API:
                self._publish(update)
            return
        if update.gone:
            self._forget(uid)
            if update.record.is_terminating:
                self._ended.add(uid)
        else:
            self._heard.add(uid)
        self._publish(update)

    def retry(self, uid: str) -> None:
        """What a pod waits for may be there now: if it waits for its next try, try now."""
        if busy := self._busy.get(uid):
            busy.set()

    def _forget(self, uid: str) -> None:
        self._removed.discard(uid)
        self._given.discard(uid)
        self._heard.discard(uid)
        self._created.pop(uid, None)
        self._said.pop(uid, None)

    def knows(self, uid: str) -> bool:
        """Whether the provider has this pod from here: whatever becomes of it is under way."""
        return uid in self._given

    async def _bring(self, uid: str) -> None:
        delay, ends = RETRY_INITIAL_S, False
        try:
            while change := self._orders.pop(uid, None):
                self._busy[uid].clear()
                if ends != (ends := _ends(change)):
                    # However often it could not be updated: its end is not what failed.
                    delay = RETRY_INITIAL_S
                try:
                    await self._call(uid, change)
                    delay = RETRY_INITIAL_S
                except (Retryable, Permanent, NotFound) as error:
                    self._say_failed(change, str(error))
                    self._orders.setdefault(uid, change)
                    # A pod that can't be created may be deleted meanwhile: that order does not wait.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(delay):
                            await self._busy[uid].wait()
                    delay = min(delay * 2, RETRY_MAXIMUM_S)
        finally:
            del self._busy[uid]

    async def _call(self, uid: str, change: DesiredChange) -> None:
        record = change.record
        if record is None:
            assert change.was is not None
            self._ended.discard(uid)
            if uid in self._given:
                self._removed.add(uid)
                await self._delete(change.was)
        elif uid in self._ended:
            return
        elif record.is_terminating:
            self._given.add(uid)
            await self._delete(record)
        elif uid in self._created and uid not in self._removed:
            await self._update(record)
        else:
            await self._create(record)
            if _is_new(change):
                self._say_success(record, _CREATED)
            elif change.recalled:
                # An agent before this one said it: once a pod is once in its life.
                self._said.setdefault(uid, set()).add(_UPDATED)

    async def _create(self, record: PodRecord) -> None:
        self._given.add(record.uid)
        # A manifest that was taken away and put back has the UID that it had: the provider ends the old one first.
        self._removed.discard(record.uid)
        await self._provider.create_pod(record)
        self._given.add(record.uid)
        self._created[record.uid] = record.pod

    async def _update(self, record: PodRecord) -> None:
        before = self._created[record.uid]
        try:
            await self._provider.update_pod(record)
        except NotFound:
            # It lost the pod: made again, it is as desired.
            del self._created[record.uid]
            await self._create(record)
            return
        self._created[record.uid] = record.pod
        # Mostly a pod comes back with nothing but its own status. Of a new pod virtual-kubelet's users see that as its
        # first update; after a restart it is no news.
        is_new = _CREATED in self._said.get(record.uid, ())
        back = self._status_is_update and is_new and before.status != record.pod.status
        if back or _asks(before) != _asks(record.pod):
            self._say_success(record, _UPDATED)

    async def _delete(self, record: PodRecord) -> None:
        try:
            await self._provider.delete_pod(record)
        except NotFound:
            # Nobody else will tell the end of a pod that its provider does not have.
            said = record.pod.status.phase
            lost = "The provider does not have the pod any more"
            status = PodStatus(phase=Phase.FAILED, reason="NotFound", message=lost)
            if said in (Phase.SUCCEEDED, Phase.FAILED):
                was = record.pod.status
                status = PodStatus(phase=Phase(said), reason=was.reason, message=was.message)
            self.pod_updated(_News(record, status, gone=True))

    def _say_failed(self, change: DesiredChange, message: str) -> None:
        record = change.record or change.was
        assert record is not None
        uid = record.uid
        if _ends(change):
            reason = "ProviderDeleteFailed"
        else:
            reason = "ProviderUpdateFailed" if uid in self._created else "ProviderCreateFailed"
        logger.bind(pod=record.pod.full_name).warning("{}: {}", reason, message)
        self._say(record, "Warning", reason, message)
        if reason == "ProviderCreateFailed" and uid not in self._heard and _is_new(change):
            self._publish(_News(record, PodStatus(phase=Phase.PENDING, reason=FAILED_REASON, message=message)))

    def _say_success(self, record: PodRecord, what: tuple[str, str]) -> None:
        if self._says_success:
            self._say(record, "Normal", *what)

    def _say(self, record: PodRecord, kind: str, reason: str, message: str) -> None:
        """Once a pod: a retry that fails as before is no news."""
        said = self._said.setdefault(record.uid, set())
        if (reason, message) not in said:
            said.add((reason, message))
            self._events.record(ObjectReference.of(record.pod), kind, reason, message)


def _ends(change: DesiredChange) -> bool:
    return change.record is None or change.record.is_terminating


def _is_new(change: DesiredChange) -> bool:
    """Not one that runs, or may have run before a restart: that must not look as if it began now."""
    assert change.record is not None
    return not change.recalled and change.record.pod.status.phase in ("", Phase.PENDING)


def _asks(pod: Pod) -> tuple[object, ...]:
    """What a provider is asked for."""
    return pod.spec, pod.metadata.labels, pod.metadata.annotations


class _News(msgspec.Struct, frozen=True):
    """What the provider does not say itself: that it failed, or that it does not know a pod."""

    record: PodRecord
    status: PodStatus
    gone: bool = False
    settle_s: float = 0.0
