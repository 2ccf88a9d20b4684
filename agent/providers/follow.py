"""Look after the pods of a provider that does not do it itself: what most people's providers are.

In: the controller's calls, and the provider's word: told by `notify_pods`, or asked for every 5 s. Out: the same calls,
made only where the provider needs them, and PodUpdates. Each pod's last status is kept in the record, so that after a
restart nothing that has ended is run again. A pod that the provider lacks is lost only once it has said so twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
from loguru import logger

from agent.clock import Clock
from agent.errors import EdgeletError, NotFound, Permanent, Retryable
from agent.model.objects import ObjectKey, ObjectReference
from agent.model.pod import Pod
from agent.model.record import PodRecord
from agent.model.status import Phase, PodStatus
from agent.pods.missing import missing_objects
from agent.pods.ports import Events, Objects
from agent.pods.references import references
from agent.pods.status_record import StatusRecord
from agent.providers.complete import complete
from agent.providers.contract import NotifiesPods, PodUpdate, PodUpdates, Provider
from agent.providers.foreign import asked
from agent.providers.lost import lost_status
from agent.store.base import Store

POLL_S = 5.0
"""Also between the two times that a provider must say that it does not have a pod."""
LOOKS_AT_ONCE = 16


class _Followed(msgspec.Struct, eq=False):
    record: PodRecord
    status: PodStatus | None = None
    created: bool = False
    ending: bool = False
    told: bool = False
    """Since the agent started."""
    misses: int = 0
    gone: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    @property
    def over(self) -> bool:
        """It has ended, and only its deletion is of interest."""
        return self.status is not None and self.status.phase.is_terminal


class Follower:
    """`run` must be running before pods are handed to it."""

    def __init__(
        self, provider: Provider, store: Store, objects: Objects, events: Events, clock: Clock, resync_s: float
    ) -> None:
        """`resync_s`: how often pods are looked at whose status the provider tells by itself."""
        self._provider = provider
        self._objects = objects
        self._events = events
        self._clock = clock
        self._statuses = StatusRecord(store)
        self._last: dict[str, PodStatus] = {}
        self._pods: dict[str, _Followed] = {}
        self._updates: PodUpdates = lambda _: None
        self._open = asyncio.Event()
        self._tells = isinstance(provider, NotifiesPods)
        self._every_s = resync_s if self._tells else POLL_S
        if isinstance(provider, NotifiesPods):
            provider.notify_pods(self._told)

    def notify_pods(self, updates: PodUpdates) -> None:
        self._updates = updates

    async def run(self) -> None:
        """For as long as the agent lives."""
        self._last = await self._statuses.load()
        self._open.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._statuses.run(), name="record statuses")
            tasks.create_task(self._look_around(), name="look at pods")

    # ------------------------------------------------------------ the controller's calls

    async def create_pod(self, record: PodRecord) -> None:
        await self._open.wait()
        pod = self._pods.get(record.uid)
        if pod is not None and pod.ending:
            # A manifest that was put back: the old pod has the same UID.
            await pod.gone.wait()
            pod = None
        if pod is None:
            older = [one for one in self._pods.values() if one.record.pod.full_name == record.pod.full_name]
            pod = self._pods[record.uid] = _Followed(record, self._last.pop(record.uid, None))
            # Two pods of one name must not run together, and many providers know pods by name alone.
            for one in older:
                await one.gone.wait()
        pod.record = record
        if pod.over and pod.status is not None:
            # The API server may not have heard of its end.
            self._updates(PodUpdate(record, pod.status))
            return
        if record.pod.status.phase in (Phase.SUCCEEDED, Phase.FAILED):
            return
        present = await self._found(record)
        if present is None:
            await self._check_objects(record.pod)
            await asked(self._provider.create_pod(record))
        elif _changed(present.pod, record.pod):
            await asked(self._provider.update_pod(record))
        pod.created = True
        if present is not None or not self._tells:
            await self._look(pod)

    async def update_pod(self, record: PodRecord) -> None:
        if (pod := self._pods.get(record.uid)) is None:
            raise NotFound(f"pod {record.pod.full_name} was never created")
        before, pod.record = pod.record, record
        if pod.over or pod.ending or not _changed(before.pod, record.pod):
            return
        try:
            await asked(self._provider.update_pod(record))
        except NotFound:
            self._missed(pod)
        except EdgeletError:
            pod.record = before  # so that the next try sees the change again
            raise
        if not self._tells:
            await self._look(pod)

    async def delete_pod(self, record: PodRecord) -> None:
        await self._open.wait()
        pod = self._pods.setdefault(record.uid, _Followed(record, self._last.pop(record.uid, None)))
        pod.record, pod.ending = record, True
        try:
            if (await self._named(record)).uid == record.uid:
                await asked(self._provider.delete_pod(record))
                await self._look(pod)
                return
            # Another pod has the name by now, and a provider that knows pods by name would end that one.
        except NotFound:
            pass
        self._end(pod, self._last_word(pod))

    async def get_pods(self) -> tuple[PodRecord, ...]:
        return await asked(self._provider.get_pods())

    # ------------------------------------------------------------ the provider's word

    def _told(self, update: PodUpdate) -> None:
        if (pod := self._pods.get(update.record.uid)) is not None:
            self._take(pod, update.status, gone=update.gone, settle_s=update.settle_s)

    def _take(self, pod: _Followed, status: PodStatus, *, gone: bool = False, settle_s: float = 0.0) -> None:
        pod.misses = 0
        pod.created = True
        status = complete(pod.record.pod, status, pod.status, self._clock.wall())
        running = any(one.state.running for one in (*status.containerStatuses, *status.initContainerStatuses))
        if gone or (pod.ending and status.phase.is_terminal and not running):
            self._end(pod, status)
        elif (status != pod.status or not pod.told) and not (pod.over and pod.told and not pod.ending):
            pod.status, pod.told = status, True
            self._statuses.put(pod.record.uid, status)
            self._updates(PodUpdate(pod.record, status, settle_s=settle_s))

    def _end(self, pod: _Followed, status: PodStatus) -> None:
        """Nothing of it is left at the provider."""
        uid = pod.record.uid
        self._pods.pop(uid, None)
        self._objects.release(uid)
        self._statuses.forget(uid)
        pod.gone.set()
        self._updates(PodUpdate(pod.record, status, gone=True))

    def _last_word(self, pod: _Followed) -> PodStatus:
        said = pod.record.pod.status
        if pod.status is None and said.phase in (Phase.SUCCEEDED, Phase.FAILED):
            return PodStatus(phase=Phase(said.phase), reason=said.reason, message=said.message)
        return lost_status(pod.status, self._clock.wall())

    def _missed(self, pod: _Followed) -> None:
        """The provider said that it does not have this pod."""
        if pod.ending:
            self._end(pod, self._last_word(pod))
            return
        pod.misses += 1
        if pod.created and pod.misses > 1:
            logger.bind(pod=pod.record.pod.full_name).warning("the provider has lost this pod")
            self._take(pod, lost_status(pod.status, self._clock.wall()))

    # ------------------------------------------------------------ looking

    async def _look_around(self) -> None:
        due = self._clock.monotonic() + self._every_s
        while True:
            await self._clock.sleep(POLL_S)
            alive = [pod for pod in self._pods.values() if pod.ending or (pod.created and not pod.over)]
            if self._clock.monotonic() < due:
                # One that is missing, or ends, is asked for sooner than it must be.
                alive = [pod for pod in alive if pod.ending or pod.misses]
            else:
                due = self._clock.monotonic() + self._every_s
            await self._look_at(alive)

    async def _look_at(self, pods: Iterable[_Followed]) -> None:
        waiting = iter(pods)

        async def look_on() -> None:
            for pod in waiting:
                await self._look(pod)

        async with asyncio.TaskGroup() as tasks:
            for number in range(LOOKS_AT_ONCE):
                tasks.create_task(look_on(), name=f"look {number}")

    async def _look(self, pod: _Followed) -> None:
        meta = pod.record.pod.metadata
        try:
            if await self._found(pod.record) is None:
                self._missed(pod)
                return
            status = await asked(self._provider.get_pod_status(meta.namespace, meta.name))
        except NotFound:
            self._missed(pod)
        except (Retryable, Permanent) as error:
            logger.bind(pod=pod.record.pod.full_name).debug("its status cannot be had now: {}", error)
        else:
            if self._pods.get(meta.uid) is pod:
                self._take(pod, status)

    async def _found(self, record: PodRecord) -> PodRecord | None:
        """The pod as the provider has it; another pod of its name is not it."""
        try:
            found = await self._named(record)
        except NotFound:
            return None
        return found if found.uid == record.uid else None

    async def _named(self, record: PodRecord) -> PodRecord:
        meta = record.pod.metadata
        return await asked(self._provider.get_pod(meta.namespace, meta.name))

    async def _check_objects(self, pod: Pod) -> None:
        """Raises Retryable while an object is missing that the pod cannot be without."""
        keys = references(pod)
        if not keys:
            return
        self._objects.retain(pod.uid, keys)
        absent: set[ObjectKey] = set()
        for key in keys:
            try:
                await self._objects.get(key)
            except NotFound:
                absent.add(key)
        found_missing = missing_objects(pod, absent)
        for one in found_missing:
            self._events.record(ObjectReference.of(pod), "Warning", one.reason, one.message)
        if needed := [one.message for one in found_missing if not one.optional]:
            raise Retryable(", ".join(needed))


def _changed(before: Pod, now: Pod) -> bool:
    """In what a provider is told of."""
    return (
        before.spec != now.spec
        or before.metadata.labels != now.metadata.labels
        or before.metadata.annotations != now.metadata.annotations
    )
