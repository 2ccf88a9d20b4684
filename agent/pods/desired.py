"""The pods that this node must run: the record's, kept in memory beside it.

In: pods from the API server's list and watch and from manifests. They are written to the record first; only what is
durable is handed on as a `DesiredChange`. Changes that arrive together share one commit. A change of nothing but the
status (mostly our own, coming back) is not worth a write to disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import msgspec
from loguru import logger
from tenacity import retry, retry_if_exception_type, wait_exponential, wait_random

from agent.errors import Retryable
from agent.model.pod import ApiPodStatus, Pod
from agent.model.record import Origin, PodRecord
from agent.pods.scripts.kind import settled
from agent.store.base import Delete, Put, Store

PREFIX = "pods/"


class DesiredChange(msgspec.Struct, frozen=True):
    """A durable change. `record` is None when the pod is desired no more; `was` is what stood before."""

    record: PodRecord | None
    was: PodRecord | None
    recalled: bool = False
    """It was in the record when the agent started: whatever it says of the pod's status is old."""


class _Order(msgspec.Struct, frozen=True):
    upsert: PodRecord | None = None
    remove: str | None = None
    replace: tuple[Origin, dict[str, PodRecord]] | None = None


class DesiredPods:
    """The desired set. One owner runs `run`; sources call upsert, remove and replace_all in order."""

    def __init__(
        self,
        store: Store,
        changed: Callable[[DesiredChange], None],
        origins: frozenset[Origin] = frozenset({Origin.API}),
    ) -> None:
        """`origins` are those that name pods on this node."""
        self._unheard = set(origins)
        self._store = store
        self._changed = changed
        self._pods: dict[str, PodRecord] = {}
        self._orders: asyncio.Queue[_Order] = asyncio.Queue()
        self.verified = asyncio.Event()
        """Set once a complete list of every origin was taken over: what is in none of them is an orphan."""

    async def load(self) -> None:
        """Read the record at the start and hand on every pod in it."""
        for row in await self._store.list(PREFIX):
            try:
                origin = Origin(row.key.removeprefix(PREFIX).partition("/")[0])
                record = PodRecord.decode(row.value, origin)
            except (msgspec.ValidationError, ValueError) as error:
                logger.error("record row {} is not a pod and is left alone: {}", row.key, error)
                continue
            self._pods[record.uid] = record
        for record in sorted(self._pods.values(), key=_age):
            self._changed(DesiredChange(record, None, recalled=True))

    def get(self, uid: str) -> PodRecord | None:
        return self._pods.get(uid)

    def all(self) -> tuple[PodRecord, ...]:
        return tuple(self._pods.values())

    def find(self, namespace: str, name: str) -> PodRecord | None:
        """The newest pod of that name."""
        found = [r for r in self._pods.values() if (r.pod.metadata.namespace, r.pod.metadata.name) == (namespace, name)]
        return max(found, key=lambda r: r.pod.metadata.creationTimestamp or "", default=None)

    def upsert(self, record: PodRecord) -> None:
        self._orders.put_nowait(_Order(upsert=record))

    def remove(self, uid: str, last: PodRecord | None = None) -> None:
        """`last` is the pod's last state, where it is known: it says how much time the pod has for its end."""
        if last is not None and uid in self._pods:
            self._pods[uid] = settled(last, self._pods[uid])
        self._orders.put_nowait(_Order(remove=uid))

    def replace_all(self, origin: Origin, records: Iterable[PodRecord]) -> None:
        """A complete, verified list: what it lacks and this origin named before is removed."""
        self._orders.put_nowait(_Order(replace=(origin, {r.uid: r for r in records})))

    async def run(self) -> None:
        """Take orders for as long as the agent lives, all that wait in one commit."""
        while True:
            orders = [await self._orders.get()]
            while not self._orders.empty():
                orders.append(self._orders.get_nowait())
            changes: dict[str, PodRecord | None] = {}
            for order in orders:
                changes.update(self._resolve(order, changes))
            await self._commit(changes)
            self._unheard -= {order.replace[0] for order in orders if order.replace is not None}
            if not self._unheard:
                self.verified.set()

    def _resolve(self, order: _Order, pending: dict[str, PodRecord | None]) -> dict[str, PodRecord | None]:
        if order.upsert is not None:
            return {order.upsert.uid: order.upsert}
        if order.remove is not None:
            return {order.remove: None}
        assert order.replace is not None
        origin, records = order.replace
        known = {uid: r for uid, r in {**self._pods, **pending}.items() if r is not None and r.origin is origin}
        return {**records, **{uid: None for uid in known if uid not in records}}

    async def _commit(self, changes: dict[str, PodRecord | None]) -> None:
        writes: list[Put | Delete] = []
        changes = {uid: self._settled(uid, record) for uid, record in changes.items()}
        for uid, record in changes.items():
            was = self._pods.get(uid)
            if record is None:
                if was is not None:
                    writes.append(Delete(_key(was)))
            elif was is None or _essence(was.pod) != _essence(record.pod):
                writes.append(Put(_key(record), record.raw))
        if writes:
            await self._write(writes)
        for uid, record in sorted(changes.items(), key=lambda change: _age(change[1])):
            was = self._pods.pop(uid, None)
            if record is not None:
                self._pods[uid] = record
            if record is not None or was is not None:
                self._changed(DesiredChange(record, was))

    def _settled(self, uid: str, record: PodRecord | None) -> PodRecord | None:
        was = self._pods.get(uid)
        return record if record is None or was is None else settled(record, was)

    @retry(
        retry=retry_if_exception_type(Retryable),
        wait=wait_exponential(multiplier=0.2, max=10) + wait_random(0, 0.2),
        before_sleep=lambda state: logger.error("{}; trying again", state.outcome and state.outcome.exception()),
    )
    async def _write(self, writes: list[Put | Delete]) -> None:
        """Nothing is acted on that is not durable: a full disk holds changes back, and the pods that run go on."""
        await self._store.batch(writes)


async def has_pods_of_api(store: Store) -> bool:
    """Whether the record has pods that the API server named. Raises Retryable."""
    return bool(await store.list(f"{PREFIX}{Origin.API}/"))


def _age(record: PodRecord | None) -> str:
    """Sorts what goes before what comes, and that from old to new: who came first has the node's room first."""
    return "" if record is None else record.pod.metadata.creationTimestamp or ""


def _key(record: PodRecord) -> str:
    return f"{PREFIX}{record.origin}/{record.uid}"


def _essence(pod: Pod) -> Pod:
    """All that must survive a power cut: everything but the status and the resourceVersion."""
    meta = msgspec.structs.replace(pod.metadata, resourceVersion="")
    return msgspec.structs.replace(pod, metadata=meta, status=ApiPodStatus())
