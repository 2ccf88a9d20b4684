"""The cluster's services, for the environment variables that every container is given.

In: one list and watch of all services. Out: those of a namespace and `default/kubernetes`. Only namespaces that pods of
this node live in are in the record, so that a pod starts without a network with the environment it had.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing

import msgspec
from loguru import logger

from agent.clock import Clock
from agent.errors import Retryable
from agent.kube.rest import CALL_TIMEOUT_S, Api
from agent.kube.watch import Disconnected, Listed, RawObject, Removed, Resumed, Upserted, list_watch
from agent.model.objects import Service
from agent.store.base import Delete, Put, Store

PREFIX = "objects/services/"
API_SERVER = ("default", "kubernetes")
FALLBACK_TIMEOUT_S = 2.0

_services = msgspec.json.Decoder(Service)


class Services:
    """One owner runs `run`; `of` may be called before."""

    def __init__(self, api: Api, store: Store, clock: Clock) -> None:
        self._api = api
        self._store = store
        self._clock = clock
        self._all: dict[str, dict[str, Service]] = {}
        self._used: set[str] = set()
        self._durable: set[str] = set()
        self._read = asyncio.Event()
        """The API server's list was read since the start."""
        self._tried = asyncio.Event()
        """The API server was asked, whatever came of it."""
        self._changing = asyncio.Lock()

    async def run(self) -> None:
        events = list_watch(self._api, "/api/v1/services", sleep=self._clock.sleep)
        async with aclosing(events):
            async for event in events:
                match event:
                    case Listed(items=()) if await self._recall(API_SERVER[0]):
                        # Every cluster has `default/kubernetes`.
                        logger.warning("a list of no services at all is not believed")
                    case Listed(items=items):
                        self._all.clear()
                        for item in items:
                            self._put(item)
                        await self._record(self._used)
                        self._read.set()
                    case Upserted(object=found):
                        self._put(found)
                        await self._record(self._used & {found.meta.namespace})
                    case Removed(object=found):
                        self._all.get(found.meta.namespace, {}).pop(found.meta.name, None)
                        await self._record(self._used & {found.meta.namespace})
                    case Resumed() | Disconnected():
                        pass
                self._tried.set()

    async def of(self, namespace: str) -> tuple[Service, ...]:
        """The namespace's services by name, and `default/kubernetes`. Raises Retryable where they were never read."""
        if not self._read.is_set():
            recorded = await self._recall(namespace)
            answer, timeout_s = (self._tried, FALLBACK_TIMEOUT_S) if recorded else (self._read, CALL_TIMEOUT_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await answer.wait()
            if not self._read.is_set():
                if recorded:
                    return recorded
                raise Retryable("the cluster's services have not been read yet")
        needed = {namespace, API_SERVER[0]}
        # Used before it is recorded, so that a change meanwhile is recorded too.
        self._used |= needed
        if missing := needed - self._durable:
            await self._record(missing)
            self._durable |= missing
        found = list(self._all.get(namespace, {}).values())
        api_server = self._all.get(API_SERVER[0], {}).get(API_SERVER[1])
        if namespace != API_SERVER[0] and api_server is not None:
            found.append(api_server)
        return tuple(found)

    def _put(self, item: RawObject) -> None:
        try:
            service = _services.decode(item.raw)
        except msgspec.DecodeError as error:
            logger.error("service {}/{} can't be read: {}", item.meta.namespace, item.meta.name, error)
            return
        self._all.setdefault(item.meta.namespace, {})[item.meta.name] = service

    async def _record(self, namespaces: set[str]) -> None:
        """Make the record of these namespaces what memory is; what has not changed is not written."""
        async with self._changing:
            changes: list[Put | Delete] = []
            for namespace in namespaces:
                wanted = {
                    f"{PREFIX}{namespace}/{name}": msgspec.json.encode(service)
                    for name, service in self._all.get(namespace, {}).items()
                }
                known = await self._known(namespace)
                changes += [Put(key, value) for key, value in wanted.items() if known.get(key) != value]
                changes += [Delete(key) for key in known if key not in wanted]
            if changes:
                await self._store.batch(changes)

    async def _known(self, namespace: str) -> dict[str, bytes]:
        return {row.key: row.value for row in await self._store.list(f"{PREFIX}{namespace}/")}

    async def _recall(self, namespace: str) -> tuple[Service, ...]:
        """As recorded; empty where the record was never filled: every cluster has `default/kubernetes`."""
        api_server = await self._store.get(f"{PREFIX}{API_SERVER[0]}/{API_SERVER[1]}")
        if api_server is None:
            return ()
        rows = [row for row in await self._store.list(f"{PREFIX}{namespace}/") if row.key != api_server.key]
        try:
            return tuple(_services.decode(row.value) for row in (*rows, api_server))
        except msgspec.DecodeError as error:
            logger.error("a recorded service of {} can't be read: {}", namespace, error)
            return ()
