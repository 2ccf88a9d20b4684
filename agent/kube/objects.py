"""What pods refer to by name (ConfigMaps, Secrets, claims, …): one watch each, never a list of them all.

In: which pod refers to what. Out: the newest object as bytes, written to the record before it is handed on, and a wake
for each pod whose object changed. While an object's watch stands, it is served from memory; while the API server does
not answer, from the record. The Node authorizer lets a node read exactly these objects, by name; of claims and their
volumes it refuses the watch, so these are asked for whenever a pod's volumes are set up, and recorded all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Final, get_args

import msgspec
from loguru import logger

from agent.clock import Clock
from agent.errors import EdgeletError, NotFound, Retryable
from agent.kube.authorize import authorized
from agent.kube.rest import CALL_TIMEOUT_S, Api
from agent.kube.services import Services
from agent.kube.watch import Disconnected, Listed, Meta, RawObject, Removed, Resumed, Upserted, WatchEvent, list_watch
from agent.model.objects import ObjectKey, ObjectKind, Service
from agent.store.base import Delete, Store

PREFIX = "objects/"
LINGER_S = 5.0
"""An object nobody refers to is watched this much longer: a pod's successor mostly refers to the same."""
FALLBACK_TIMEOUT_S = 2.0
"""How long a pod waits for the API server while the record has the object."""

UNWATCHED: Final[frozenset[ObjectKind]] = frozenset(
    {"persistentvolumeclaims", "persistentvolumes", "volumeattachments"}
)
"""Kinds of which a node may `get` its pods' objects and nothing more."""

GROUPS: Final[Mapping[ObjectKind, str]] = {
    "clustertrustbundles": "/apis/certificates.k8s.io/v1beta1",
    "csidrivers": "/apis/storage.k8s.io/v1",
    "volumeattachments": "/apis/storage.k8s.io/v1",
    "runtimeclasses": "/apis/node.k8s.io/v1",
}
"""Where the kinds are that are not of core/v1."""


class _Head(msgspec.Struct):
    metadata: Meta
    immutable: bool | None = None


class _Selected(msgspec.Struct):
    items: list[msgspec.Raw] | None = None


_heads = msgspec.json.Decoder(_Head)
_selections = msgspec.json.Decoder(_Selected)


class _Entry(msgspec.Struct, eq=False):
    key: ObjectKey
    pods: set[str] = msgspec.field(default_factory=set)
    raw: bytes | None = None
    version: str | None = None
    """resourceVersion of what is recorded; "" where the API server said that there is none; None: not known yet."""
    live: bool = False
    """Memory is as new as the watch can make it."""
    tried: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    """The watch had its first answer, whatever it was."""
    changing: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    watcher: asyncio.Task[None] | None = None
    leaving: bool = False
    selected: dict[str, RawObject] = msgspec.field(default_factory=dict)
    """By name, where the key is a selection."""


class ReferencedObjects:
    """Fits `agent.pods.ports.Objects`. One owner runs `run`; what is retained before that is watched from then on."""

    def __init__(self, api: Api, store: Store, wake: Callable[[str], None], clock: Clock) -> None:
        self._api = api
        self._store = store
        self._wake = wake
        self._clock = clock
        self._entries: dict[ObjectKey, _Entry] = {}
        self._retained: dict[str, frozenset[ObjectKey]] = {}
        self._services = Services(api, store, clock)
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Owns every watch; ends only by cancellation or a bug in one of them."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self._services.run(), name="watch services")
                for entry in self._entries.values():
                    self._watch(entry)
                await asyncio.get_running_loop().create_future()
        finally:
            self._tasks = None

    def retain(self, pod_uid: str, keys: Iterable[ObjectKey]) -> None:
        """This pod refers to exactly these objects from now on."""
        wanted = frozenset(keys)
        before = self._retained.get(pod_uid, frozenset())
        if wanted:
            self._retained[pod_uid] = wanted
        else:
            self._retained.pop(pod_uid, None)
        for key in wanted - before:
            entry = self._entries.setdefault(key, _Entry(key))
            entry.pods.add(pod_uid)
            self._watch(entry)
        for key in before - wanted:
            entry = self._entries[key]
            entry.pods.discard(pod_uid)
            if not entry.pods and not entry.leaving and self._tasks is not None:
                entry.leaving = True
                self._tasks.create_task(self._leave(entry), name=f"let go {_name(key)}")

    def release(self, pod_uid: str) -> None:
        """The pod is gone."""
        self.retain(pod_uid, ())

    async def get(self, key: ObjectKey) -> bytes:
        """The object as JSON, in the record before it is returned.

        Raises NotFound where the API server said so, Forbidden, Permanent, or Retryable where neither it nor the record
        answers.
        """
        entry = self._entries.get(key) or _Entry(key)
        if not entry.live:
            await self._refresh(entry)
        if entry.raw is None:
            where = f" in namespace {key.namespace}" if key.namespace else ""
            raise NotFound(f'{key.kind} "{key.name}" not found{where}')
        return entry.raw

    async def services(self, namespace: str) -> tuple[Service, ...]:
        """The namespace's services and `default/kubernetes`. Raises Retryable where they were never read."""
        return await self._services.of(namespace)

    async def keep_only_retained(self) -> None:
        """Remove from the record what pods referred to that went while the agent was down."""
        keep = {_row(key) for key in self._entries}
        rows = [row for kind in get_args(ObjectKind) for row in await self._rows(kind)]
        if stale := [Delete(row) for row in rows if row not in keep]:
            await self._store.batch(stale)

    async def _rows(self, kind: str) -> list[str]:
        return [row.key for row in await self._store.list(f"{PREFIX}{kind}/")]

    async def _refresh(self, entry: _Entry) -> None:
        """Bring the entry's memory up to date by the watch's first answer, a request, or the record."""
        async with entry.changing:
            await self._recall(entry)
        recorded = entry.raw is not None
        if recorded and not self._api.reachable:
            return
        timeout_s = FALLBACK_TIMEOUT_S if recorded else CALL_TIMEOUT_S
        if entry.watcher is not None:
            try:
                async with asyncio.timeout(timeout_s):
                    await entry.tried.wait()
            except TimeoutError:
                if recorded:
                    return
                raise Retryable(f"no answer for {_name(entry.key)} within {timeout_s:.0f} s") from None
            if entry.live:
                return

        async def request() -> bytes:
            path, selectors = _path(entry.key, named=True), _selectors(entry.key)
            return await self._api.get(path, selectors if entry.key.fields else None, timeout_s=timeout_s)

        try:
            # The API server learns a little late what a pod refers to; of what no pod does its no is final.
            late = entry.pods or entry.key.kind in UNWATCHED
            raw = await (authorized(request, self._clock.sleep) if late else request())
        except NotFound:
            await self._take(entry, None)
        except Retryable as error:
            if not recorded:
                raise
            logger.debug("{} is served from the record: {}", _name(entry.key), error)
        else:
            try:
                await self._take(entry, _answer(entry, raw))
            except msgspec.DecodeError as error:
                raise Retryable(f"{_name(entry.key)}: the answer is no object: {error}") from error

    def _watch(self, entry: _Entry) -> None:
        if entry.key.kind in UNWATCHED:
            return
        if self._tasks is not None and entry.watcher is None and not entry.live:
            entry.tried.clear()
            entry.watcher = self._tasks.create_task(self._follow(entry), name=f"watch {_name(entry.key)}")

    async def _follow(self, entry: _Entry) -> None:
        selectors = _selectors(entry.key)
        try:
            events = list_watch(
                self._api,
                _path(entry.key),
                selectors["fieldSelector"],
                selectors.get("labelSelector", ""),
                sleep=self._clock.sleep,
            )
            async with aclosing(events):
                async for event in events:
                    await self._follow_one(entry, event)
                    entry.tried.set()
                    if entry.live and entry.raw is not None and _heads.decode(entry.raw).immutable:
                        # It can only be deleted, and its pods keep what they have.
                        return
        finally:
            entry.watcher = None
            entry.tried.set()

    async def _follow_one(self, entry: _Entry, event: WatchEvent) -> None:
        match event:
            case Listed(items=items) if entry.key.fields:
                entry.selected = {item.meta.name: item for item in items}
                await self._take(entry, _selection(entry))
                entry.live = True
            case Upserted(object=found) if entry.key.fields:
                entry.selected[found.meta.name] = found
                await self._take(entry, _selection(entry))
            case Removed(object=found) if entry.key.fields:
                entry.selected.pop(found.meta.name, None)
                await self._take(entry, _selection(entry))
            case Listed(items=()) if not await self._is_gone(entry):
                # Served by requests, or from the record, until the watch or another list says more.
                entry.live = False
            case Listed(items=items):
                await self._take(entry, items[0] if items else None)
                entry.live = True
            case Upserted(object=found):
                await self._take(entry, found)
            case Removed():
                await self._take(entry, None)
            case Resumed():
                entry.live = True
            case Disconnected():
                entry.live = False

    async def _is_gone(self, entry: _Entry) -> bool:
        """Whether an object that a list lacks does not exist: what was had before is asked for by its name."""
        async with entry.changing:
            await self._recall(entry)
        if entry.raw is None:
            return True
        try:
            await self._take(entry, _answer(entry, await self._api.get(_path(entry.key, named=True))))
        except NotFound as error:
            return error.name == entry.key.name
        except (EdgeletError, msgspec.DecodeError) as error:
            logger.debug("whether {} is gone is not known: {}", _name(entry.key), error)
        return False

    async def _take(self, entry: _Entry, found: RawObject | None) -> None:
        """Record what the API server has, then hold it, then wake who refers to it if it is new to them."""
        async with entry.changing:
            await self._recall(entry)
            version = found.meta.resourceVersion if found is not None else ""
            before = entry.version
            if version == before:
                return
            if found is None:
                await self._store.delete(_row(entry.key))
            else:
                await self._store.put(_row(entry.key), found.raw)
            entry.version, entry.raw = version, found.raw if found is not None else None
        if before is not None:
            for uid in tuple(entry.pods):
                self._wake(uid)

    async def _recall(self, entry: _Entry) -> None:
        """What the record has, once."""
        if entry.version is not None:
            return
        row = await self._store.get(_row(entry.key))
        if row is None:
            return
        try:
            entry.version = _heads.decode(row.value).metadata.resourceVersion
        except msgspec.DecodeError as error:
            logger.error("record row {} is not an object and is replaced: {}", row.key, error)
            return
        entry.raw = row.value

    async def _leave(self, entry: _Entry) -> None:
        await self._clock.sleep(LINGER_S)
        async with entry.changing:
            entry.leaving = False
            if entry.pods:
                return
            await self._store.delete(_row(entry.key))
            if entry.pods:
                # Somebody came while the row went.
                if entry.raw is not None:
                    await self._store.put(_row(entry.key), entry.raw)
                return
            del self._entries[entry.key]
        if entry.watcher is not None:
            entry.watcher.cancel()


class RecordedObjects:
    """Without an API server: what the record has, and nothing else. Fits `agent.pods.ports.Objects`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, key: ObjectKey) -> bytes:
        row = await self._store.get(_row(key))
        if row is None:
            raise NotFound(f"{_name(key)} can't be had: the node runs standalone, without an API server")
        return row.value

    def retain(self, pod_uid: str, keys: Iterable[ObjectKey]) -> None:
        """Nothing changes without an API server."""

    def release(self, pod_uid: str) -> None:
        """Nothing is held."""

    async def services(self, namespace: str) -> tuple[Service, ...]:  # noqa: ARG002
        return ()


def _answer(entry: _Entry, raw: bytes) -> RawObject:
    """What a GET brought: the object, or the list that was selected. Raises msgspec.DecodeError."""
    if not entry.key.fields:
        return RawObject(_heads.decode(raw).metadata, raw)
    items = (RawObject(_heads.decode(item).metadata, bytes(item)) for item in _selections.decode(raw).items or ())
    entry.selected = {item.meta.name: item for item in items}
    return _selection(entry)


def _selection(entry: _Entry) -> RawObject:
    """What is selected as one object, whose version changes with any of them."""
    chosen = sorted(entry.selected.items())
    version = ",".join(("selected", *(f"{name}={item.meta.resourceVersion}" for name, item in chosen)))
    listed = {"metadata": {"resourceVersion": version}, "items": [msgspec.Raw(item.raw) for _, item in chosen]}
    return RawObject(Meta(resourceVersion=version), msgspec.json.encode(listed))


def _selectors(key: ObjectKey) -> dict[str, str]:
    selectors = {"fieldSelector": key.fields or f"metadata.name={key.name}", "labelSelector": key.labels}
    return {name: value for name, value in selectors.items() if value}


def _path(key: ObjectKey, *, named: bool = False) -> str:
    within = f"/namespaces/{key.namespace}" if key.namespace else ""
    return f"{GROUPS.get(key.kind, '/api/v1')}{within}/{key.kind}" + (f"/{key.name}" if named and key.name else "")


def _row(key: ObjectKey) -> str:
    return f"{PREFIX}{key.kind}/{key.namespace}/{key.name}" + (f"?{key.fields}&{key.labels}" if key.fields else "")


def _name(key: ObjectKey) -> str:
    return f"{key.kind} {key.namespace}/{key.name}"
