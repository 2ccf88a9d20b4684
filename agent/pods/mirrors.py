"""Static pods as the API server shows them: one mirror pod for each, made, kept and taken away here.

In: static pods that come, go and have ended; the mirror pods that the API server has; whether every source has told its
pods. Out: mirrors created and deleted, one call at a time for each name and tried again for ever, and the static pods'
status for their mirrors. A mirror is a picture only: whatever becomes of it, the pod runs on.
Source: the kubelet's mirror client; the admission plugin NodeRestriction says what a node's mirror must look like.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, Protocol

import msgspec
from loguru import logger

from agent.errors import Conflict, EdgeletError, NotFound, Retryable
from agent.model import labels
from agent.model.record import Origin, PodRecord
from agent.model.status import PodStatus
from agent.pods.desired import DesiredChange
from agent.pods.publish import PodUpdateLike

RETRY_INITIAL_S = 0.5
RETRY_MAXIMUM_S = 30.0


class MirrorsApi(Protocol):
    async def create_pod(self, namespace: str, body: bytes) -> bytes:
        """POST; the pod as it was made. Raises Conflict where the name is taken, NotFound, Retryable, Permanent."""

    async def delete_pod(self, namespace: str, name: str, uid: str) -> None:
        """DELETE with grace 0 and the UID as precondition. Raises NotFound, Conflict, Retryable, Permanent."""


class Step(StrEnum):
    CREATE = "create"
    DELETE = "delete"
    NOTHING = "nothing"


class MirrorUpdate(msgspec.Struct, frozen=True):
    """A static pod's status, for its mirror: `record` is the mirror's."""

    record: PodRecord
    status: PodStatus
    settle_s: float = 0.0
    gone: bool = False


def next_step(pod: PodRecord | None, mirror: PodRecord | None, *, ending: bool, sure: bool) -> Step:
    """`pod` is the static pod that holds the name now, `ending` whether it is wanted no more but has not ended yet.

    `sure`: every source has told its pods, so that a mirror without one has lost it.
    """
    if pod is None:
        return Step.DELETE if mirror is not None and sure else Step.NOTHING
    if ending:
        return Step.NOTHING
    if mirror is None:
        return Step.CREATE
    return Step.NOTHING if is_mirror_of(mirror, pod) and not mirror.is_terminating else Step.DELETE


def is_mirror_of(mirror: PodRecord, pod: PodRecord) -> bool:
    return _annotation(mirror, labels.CONFIG_MIRROR) == _annotation(pod, labels.CONFIG_HASH)


def mirror_manifest(pod: PodRecord, node_name: str, node_uid: str) -> bytes:
    """The pod as it is created in the API server."""
    raw: dict[str, Any] = msgspec.json.decode(pod.raw)
    meta = raw["metadata"]
    kept = {key: meta[key] for key in ("name", "namespace", "labels") if key in meta}
    annotations = {**meta["annotations"], labels.CONFIG_MIRROR: meta["annotations"][labels.CONFIG_HASH]}
    owner = {"apiVersion": "v1", "kind": "Node", "name": node_name, "uid": node_uid, "controller": True}
    meta = {**kept, "annotations": annotations, "ownerReferences": [owner]}
    return msgspec.json.encode({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": raw["spec"]})


class _Name(msgspec.Struct):
    """What there is of one namespace/name."""

    pods: dict[str, PodRecord] = msgspec.field(default_factory=dict)
    """Static pods by UID, the eldest first: a new one waits for the end of the one before."""
    ending: set[str] = msgspec.field(default_factory=set)
    mirror: PodRecord | None = None

    @property
    def pod(self) -> PodRecord | None:
        return next(iter(self.pods.values()), None)

    @property
    def is_ending(self) -> bool:
        return self.pod is not None and self.pod.uid in self.ending


class Mirrors:
    """`run` must be running before pods are told."""

    def __init__(
        self,
        api: MirrorsApi,
        node_name: str,
        node_uid: Callable[[], str],
        publish: Callable[[MirrorUpdate], None],
        forget: Callable[[str], None],
        runs: Callable[[str], bool],
        verified: asyncio.Event,
    ) -> None:
        """`node_uid` is empty until the Node is registered. `forget` is told the UID of a mirror that is no more.

        `runs`: whether word of this pod's end is to follow. `verified` is set once every source has told its pods.
        """
        self._api = api
        self._node_name = node_name
        self._node_uid = node_uid
        self._publish = publish
        self._forget = forget
        self._runs = runs
        self._verified = verified
        self._listed = False
        """The API server has told its mirrors."""
        self._names: dict[str, _Name] = {}
        self._told: dict[str, PodUpdateLike] = {}
        """By the static pod's UID."""
        self._over: set[str] = set()
        """Mirrors that were deleted here: the watch may still show them."""
        self._busy: dict[str, asyncio.Event] = {}
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            await self._verified.wait()
            self.retry()
            await asyncio.get_running_loop().create_future()

    def retry(self) -> None:
        """What failed may work now: the API server answers again, or the Node is registered."""
        for name in tuple(self._names):
            self._look(name)

    # ------------------------------------------------------------ the pods' side

    def desired_changed(self, change: DesiredChange) -> None:
        """A static pod came, or is wanted no more."""
        record = change.record or change.was
        assert record is not None
        if record.origin is Origin.API:
            return
        name = self._name(record)
        if change.record is not None:
            name.pods[record.uid] = record
            name.ending.discard(record.uid)
        elif self._runs(record.uid):
            name.ending.add(record.uid)
        else:
            name.pods.pop(record.uid, None)
        self._look(record.pod.full_name)

    def told(self, update: PodUpdateLike) -> None:
        """News of a static pod."""
        uid, full_name = update.record.uid, update.record.pod.full_name
        name = self._name(update.record)
        if update.gone and uid in name.ending:
            name.pods.pop(uid, None)
            name.ending.discard(uid)
            self._told.pop(uid, None)
            self._look(full_name)
        elif not update.gone:
            self._told[uid] = update
            self._tell(full_name)

    # ------------------------------------------------------------ the API server's side

    def listed(self, mirrors: Iterable[PodRecord]) -> None:
        """All mirrors that the API server has."""
        found = {record.uid: record for record in mirrors}
        self._over &= found.keys()
        self._listed = True
        for name in self._names.values():
            if name.mirror is not None and name.mirror.uid not in found:
                self._lost(name)
        for record in found.values():
            self.seen(record)
        self.retry()

    def seen(self, mirror: PodRecord) -> None:
        if mirror.uid in self._over:
            return
        name = self._name(mirror)
        if name.mirror is not None and name.mirror.uid != mirror.uid:
            self._lost(name)
        is_new, name.mirror = name.mirror is None, mirror
        self._look(mirror.pod.full_name)
        if is_new:
            self._tell(mirror.pod.full_name)

    def removed(self, uid: str) -> None:
        self._over.discard(uid)
        for full_name, name in tuple(self._names.items()):
            if name.mirror is not None and name.mirror.uid == uid:
                self._lost(name)
                self._look(full_name)

    # ------------------------------------------------------------ inside

    def _name(self, record: PodRecord) -> _Name:
        return self._names.setdefault(record.pod.full_name, _Name())

    def _lost(self, name: _Name) -> None:
        assert name.mirror is not None
        self._forget(name.mirror.uid)
        name.mirror = None

    def _tell(self, full_name: str) -> None:
        name = self._names[full_name]
        pod, mirror = name.pod, name.mirror
        if pod is None or mirror is None or not is_mirror_of(mirror, pod):
            return
        if (update := self._told.get(pod.uid)) is not None:
            self._publish(MirrorUpdate(mirror, update.status, update.settle_s))

    def _look(self, full_name: str) -> None:
        if busy := self._busy.get(full_name):
            busy.set()
        elif self._next(full_name) is not Step.NOTHING:
            self._busy[full_name] = asyncio.Event()
            self._tasks.create_task(self._bring(full_name), name=f"mirror {full_name}")
        else:
            self._drop(full_name)

    def _next(self, full_name: str) -> Step:
        if not self._listed:
            return Step.NOTHING
        name = self._names[full_name]
        return next_step(name.pod, name.mirror, ending=name.is_ending, sure=self._verified.is_set())

    def _drop(self, full_name: str) -> None:
        name = self._names[full_name]
        if not name.pods and name.mirror is None:
            del self._names[full_name]

    async def _bring(self, full_name: str) -> None:
        """Until the mirror is as it should be."""
        delay, said = RETRY_INITIAL_S, ""
        busy = self._busy[full_name]
        try:
            while (step := self._next(full_name)) is not Step.NOTHING:
                busy.clear()
                try:
                    await self._take(step, full_name)
                    delay = RETRY_INITIAL_S
                except EdgeletError as error:
                    why = _why(error, full_name)
                    if why != said:
                        # That the API server does not answer is said once for all, elsewhere.
                        level = "DEBUG" if isinstance(error, Retryable) else "WARNING"
                        logger.bind(pod=full_name).log(level, "cannot {} its mirror pod: {}", step, why)
                    said = why
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(delay):
                            await busy.wait()
                    delay = min(delay * 2, RETRY_MAXIMUM_S)
        finally:
            del self._busy[full_name]
        self._drop(full_name)

    async def _take(self, step: Step, full_name: str) -> None:
        name = self._names[full_name]
        pod, mirror = name.pod, name.mirror
        if step is Step.CREATE:
            assert pod is not None
            if not (node_uid := self._node_uid()):
                raise NotFound("the Node is not registered yet")
            body = mirror_manifest(pod, self._node_name, node_uid)
            made = await self._api.create_pod(pod.pod.metadata.namespace, body)
            self.seen(PodRecord.decode(made))
            return
        assert mirror is not None
        meta = mirror.pod.metadata
        with contextlib.suppress(NotFound, Conflict):  # gone already, or another one by now
            await self._api.delete_pod(meta.namespace, meta.name, meta.uid)
        self._over.add(mirror.uid)
        if name.mirror is not None and name.mirror.uid == mirror.uid:
            self._lost(name)


def _why(error: EdgeletError, full_name: str) -> str:
    if isinstance(error, Conflict):
        return f"the API server has another pod of the name {full_name}; the static pod runs without a mirror"
    return str(error)


def _annotation(record: PodRecord, key: str) -> str:
    return (record.pod.metadata.annotations or {}).get(key, "")
