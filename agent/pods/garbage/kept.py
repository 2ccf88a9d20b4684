"""Ended pods whose containers stay on the node for a while, for people to look at (`edgelet.io/keep-for`).

In: an ended pod and for how long. Out: a row `kept/UID` in the record before the pod's object may go, events, and, for
pods whose object is gone, the call that takes their traces away: when the time is over, or before that when the disk is
short or the pod comes back. As long as the object is there its worker does that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Set

import msgspec
from loguru import logger

from agent.clock import sleep_unless
from agent.errors import EdgeletError
from agent.model.meta import ObjectMeta
from agent.model.objects import ObjectReference
from agent.model.pod import Pod, PodSpec
from agent.model.status import timestamp
from agent.pods.go_duration import go_duration
from agent.pods.ports import Events
from agent.store.base import Store
from agent.store.rows import read_rows

PREFIX = "kept/"
LOOK_S = 60.0
"""At least so often, for a clock that was set."""
RETRY_S = 10.0
COLLECTED = "KeptPodCollected"
IN_TIME = "its time is over"
FOR_DISK = "the disk is short"
FOR_NAME = "the same pod is back"


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    namespace: str
    name: str
    keep_s: float
    until: float
    """Unix seconds."""
    gone: bool = False
    """The pod's object is gone, and nobody but this looks after what is left."""

    def pod(self, uid: str) -> Pod:
        return Pod(metadata=ObjectMeta(name=self.name, namespace=self.namespace, uid=uid), spec=PodSpec())


Collect = Callable[[Pod], Awaitable[None]]
"""Take the traces of this pod away. Raises Retryable."""


class KeptPods:
    def __init__(self, store: Store, events: Events, wall: Callable[[], float]) -> None:
        self._store = store
        self._events = events
        self._wall = wall
        self._rows: dict[str, Kept] = {}
        self._news = asyncio.Event()

    async def load(self) -> None:
        """Raises Retryable."""
        self._rows = await read_rows(self._store, PREFIX, Kept, "kept pod")

    @property
    def gone(self) -> Set[str]:
        """UIDs of the kept pods whose object is gone: they are nobody's orphans."""
        return {uid for uid, kept in self._rows.items() if kept.gone}

    def __contains__(self, uid: object) -> bool:
        return uid in self._rows

    async def keep(self, pod: Pod, keep_s: float, ended_ago_s: float) -> float:
        """For how many seconds still. What was once found holds as long as `keep_s` is the same. Raises Retryable."""
        kept = self._rows.get(pod.uid)
        if kept is None or kept.keep_s != keep_s:
            meta, until = pod.metadata, self._wall() - ended_ago_s + keep_s
            kept = Kept(meta.namespace, meta.name, keep_s, until)
            await self._put(pod.uid, kept)
            message = (
                f"Containers, their logs and file systems stay on the node until {timestamp(until)}"
                f" ({go_duration(keep_s)} from the pod's end)"
            )
            self._events.record(ObjectReference.of(pod), "Normal", "KeptForDebugging", message)
        return kept.until - self._wall()

    async def leave(self, uid: str) -> None:
        """The pod's object is gone, and its worker: from now on this looks after it. Raises Retryable."""
        await self._put(uid, msgspec.structs.replace(self._rows[uid], gone=True))
        self._news.set()

    async def forget(self, pod: Pod, why: str = "") -> None:
        """Nothing is kept of it any more; `why`: it was collected. Raises Retryable."""
        if self._rows.pop(pod.uid, None) is not None:
            await self._store.delete(PREFIX + pod.uid)
            if why:
                message = f"Containers, their logs and file systems were removed from the node: {why}"
                self._events.record(ObjectReference.of(pod), "Normal", COLLECTED, message)

    async def run(self, collect: Collect) -> None:
        """Collect what is over, for as long as the agent lives."""
        while True:
            self._news.clear()
            now, failed = self._wall(), False
            for uid, kept in tuple(self._rows.items()):
                if kept.gone and kept.until <= now:
                    failed |= not await self._tried(uid, IN_TIME, collect)
            dues = [kept.until - self._wall() for kept in self._rows.values() if kept.gone]
            wait_s = RETRY_S if failed else max(0.0, min([LOOK_S, *dues]))
            await sleep_unless(self._news, asyncio.sleep(wait_s if dues else LOOK_S))

    async def reclaim(self, collect: Collect) -> None:
        """The disk is short: collect all of it now. Never raises ours."""
        for uid in self.gone:
            await self._tried(uid, FOR_DISK, collect)

    async def make_way(self, uid: str, collect: Collect) -> None:
        """The very same pod is to run again. Raises Retryable."""
        if uid in self.gone:
            await self._collect(uid, FOR_NAME, collect)

    async def _tried(self, uid: str, why: str, collect: Collect) -> bool:
        try:
            await self._collect(uid, why, collect)
        except EdgeletError as error:
            logger.warning("kept pod {} is not collected yet: {}", uid, error)
            return False
        return True

    async def _collect(self, uid: str, why: str, collect: Collect) -> None:
        if (kept := self._rows.get(uid)) is not None:
            pod = kept.pod(uid)
            await collect(pod)
            await self.forget(pod, why)

    async def _put(self, uid: str, kept: Kept) -> None:
        await self._store.put(PREFIX + uid, msgspec.json.encode(kept))
        self._rows[uid] = kept
