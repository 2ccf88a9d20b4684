"""Tell the API server how the pods are: one PATCH a transition, newest first, pods in parallel.

In: PodUpdates of the provider. Out: PATCHes of the status subresource with the UID as precondition and, for a pod whose
end is complete, the final DELETE. Nothing here ever waits in front of a pod: while the API server is away the newest
status of each pod is kept and tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import msgspec
from loguru import logger

from agent.errors import Conflict, Forbidden, NotFound, Permanent, Retryable
from agent.model.record import PodRecord
from agent.model.status import PodStatus
from agent.pods.resize import IN_PROGRESS, PENDING

RETRY_INITIAL_S = 0.2
RETRY_MAXIMUM_S = 10.0


class PodUpdateLike(Protocol):
    """The part of a provider's PodUpdate that is published."""

    @property
    def record(self) -> PodRecord: ...
    @property
    def status(self) -> PodStatus: ...
    @property
    def gone(self) -> bool: ...
    @property
    def settle_s(self) -> float: ...


class PodsApi(Protocol):
    async def patch_pod_status(self, namespace: str, name: str, body: bytes) -> None:
        """Strategic-merge PATCH of pods/NAME/status. Raises NotFound, Conflict (other UID), Retryable, Permanent."""

    async def delete_pod(self, namespace: str, name: str, uid: str) -> None:
        """DELETE with grace 0 and the UID as precondition. Raises NotFound, Conflict, Retryable, Permanent."""


class _Outgoing(msgspec.Struct):
    update: PodUpdateLike
    sent: PodStatus | None = None
    news: asyncio.Event = msgspec.field(default_factory=asyncio.Event)


class Publisher:
    """Owned by the application; `run` must be running before the first `publish`."""

    def __init__(
        self,
        api: PodsApi,
        finalized: Callable[[str], None],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        told: Callable[[str, PodStatus], None] = lambda _uid, _status: None,
    ) -> None:
        """`finalized` is told the UID of a pod that its final DELETE took away (or which was gone already).

        `pause` waits before a try is repeated, at most so many seconds: until the API server answers again.
        `told` hears of each status that is settled: the API server has it, refused it or has no such pod.
        """
        self._api = api
        self._pause = pause
        self._finalized = finalized
        self._told = told
        self._outgoing: dict[str, _Outgoing] = {}
        self._active: set[str] = set()
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.get_running_loop().create_future()

    @property
    def waiting(self) -> int:
        """Pods whose newest status is not told yet."""
        return len(self._active)

    def publish(self, update: PodUpdateLike) -> None:
        """Take the newest status of a pod. Returns at once."""
        uid = update.record.uid
        outgoing = self._outgoing.setdefault(uid, _Outgoing(update))
        outgoing.update = update
        outgoing.news.set()
        if uid not in self._active:
            self._active.add(uid)
            self._tasks.create_task(self._publish_pod(uid), name=f"publish {update.record.pod.full_name}")

    def forget(self, uid: str) -> None:
        """The pod is desired no more: nobody asks for its status."""
        self._outgoing.pop(uid, None)

    async def _publish_pod(self, uid: str) -> None:
        delay = RETRY_INITIAL_S
        try:
            while outgoing := self._outgoing.get(uid):
                outgoing.news.clear()
                await self._settle(outgoing)
                update = outgoing.update
                try:
                    await self._send(outgoing, update)
                except Retryable as error:
                    logger.bind(pod=update.record.pod.full_name).debug("status is not told yet: {}", error)
                    await self._pause(error.after or delay)
                    delay = min(delay * 2, RETRY_MAXIMUM_S)
                    continue
                delay = RETRY_INITIAL_S
                self._told(uid, update.status)
                if outgoing.update is update and self._outgoing.get(uid) is outgoing:
                    return
        finally:
            self._active.discard(uid)

    async def _settle(self, outgoing: _Outgoing) -> None:
        """Hold a status back that the provider expects to better in a moment."""
        if not outgoing.update.settle_s:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(outgoing.update.settle_s):
                while outgoing.update.settle_s:
                    await outgoing.news.wait()
                    outgoing.news.clear()

    async def _send(self, outgoing: _Outgoing, update: PodUpdateLike) -> None:
        uid, ends = update.record.uid, update.gone and update.record.is_terminating
        missing = False
        try:
            if update.status != outgoing.sent:
                await self._patch(outgoing, update)
            if ends:
                await self._delete(update)
        except (NotFound, Conflict) as error:
            logger.bind(pod=update.record.pod.full_name).debug("status has no reader: {}", error)
            missing = True
            self._drop(uid, outgoing)
        if ends:
            self._drop(uid, outgoing)
            # One that somebody's finalizer holds stays in the API: it is desired until the watch says that it is gone,
            # or its echo would look like a pod to be ended anew.
            if missing or not update.record.pod.metadata.finalizers:
                self._finalized(uid)

    async def _patch(self, outgoing: _Outgoing, update: PodUpdateLike) -> None:
        meta = update.record.pod.metadata
        try:
            await self._api.patch_pod_status(
                meta.namespace, meta.name, status_patch(meta.uid, update.status, _dropped(update, outgoing))
            )
        except Forbidden as error:
            raise Retryable(f"the API server refuses the status: {error}", after=RETRY_MAXIMUM_S) from error
        except Permanent as error:
            # The same status would be refused again; the next one may not be, and an ended pod must go all the same.
            logger.bind(pod=update.record.pod.full_name).error("the API server refuses the status: {}", error)
            return
        outgoing.sent = update.status

    async def _delete(self, update: PodUpdateLike) -> None:
        meta = update.record.pod.metadata
        try:
            await self._api.delete_pod(meta.namespace, meta.name, meta.uid)
        except Permanent as error:
            logger.bind(pod=update.record.pod.full_name).error("the API server refuses the last DELETE: {}", error)
            raise Retryable(f"the API server refuses the DELETE: {error}", after=RETRY_MAXIMUM_S) from error

    def _drop(self, uid: str, outgoing: _Outgoing) -> None:
        if self._outgoing.get(uid) is outgoing:
            del self._outgoing[uid]


def _dropped(update: PodUpdateLike, outgoing: _Outgoing) -> set[str]:
    """Conditions that come and go with what they tell, and that the API server may still have."""
    told = {
        c.type for c in (*update.record.pod.status.conditions, *(outgoing.sent.conditions if outgoing.sent else ()))
    }
    return told & {PENDING, IN_PROGRESS} - {c.type for c in update.status.conditions}


def status_patch(uid: str, status: PodStatus, dropped: Iterable[str] = ()) -> bytes:
    """The strategic-merge body: lists that merge by key are replaced or nulled so that nothing old stays in them."""
    body: dict[str, Any] = msgspec.to_builtins(status)
    for condition in body.get("conditions", ()):
        # Conditions merge by type, field by field: what is not named would stay.
        for name in ("reason", "message"):
            condition.setdefault(name, None)
    if gone := [{"$patch": "delete", "type": kind} for kind in sorted(dropped)]:
        body["conditions"] = [*body.get("conditions", ()), *gone]
    for addresses in ("podIPs", "hostIPs"):
        if addresses in body:
            body[addresses] = [{"$patch": "replace"}, *body[addresses]]
    for name in ("reason", "message"):
        body.setdefault(name, None)
    return msgspec.json.encode({"metadata": {"uid": uid}, "status": body})
