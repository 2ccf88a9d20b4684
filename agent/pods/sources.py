"""Where desired pods come from: the API server's list and watch, a folder of manifests, and a URL.

In: the streams. Out: orders to the desired set, in the order in which they came; mirror pods, which are pictures of
static ones, go to who keeps these. What cannot be read is said and left as it was; it never takes a pod away. Nor does
a list: what it lacks is asked for pod by pod.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol

import msgspec
from loguru import logger

from agent import own_metrics
from agent.config import Settings
from agent.kube.pods_api import PodsApi
from agent.kube.rest import Api
from agent.kube.watch import Listed, RawObject, Removed, Upserted, list_watch
from agent.model.record import Origin, PodRecord
from agent.pods.absent import call_roll
from agent.pods.desired import DesiredPods

PODS = "/api/v1/pods"
DOUBT_INITIAL_S = 1.0
DOUBT_MAXIMUM_S = 5.0
"""Between lists that are not believed."""


class Mirrors(Protocol):
    """`agent.pods.mirrors.Mirrors`, the side of the API server."""

    def listed(self, mirrors: Iterable[PodRecord]) -> None: ...
    def seen(self, mirror: PodRecord) -> None: ...
    def removed(self, uid: str) -> None: ...


def origins(settings: Settings) -> frozenset[Origin]:
    """Where these settings look for pods."""
    found = {Origin.API} if settings.kubeconfig else set()
    found |= {Origin.FILE} if settings.pod_manifest_path else set()
    return frozenset(found | ({Origin.HTTP} if settings.manifest_url else set()))


def sources(
    settings: Settings, desired: DesiredPods, api: Api | None, mirrors: Mirrors | None
) -> Iterable[tuple[str, Coroutine[Any, Any, None]]]:
    """The jobs that follow them, named. Pods of a folder or a URL that the settings name no more are let go."""
    if api is not None and mirrors is not None:
        yield "pods of the API server", follow_api(api, settings.node_name, desired, mirrors)
    for origin in {Origin.FILE, Origin.HTTP} - origins(settings):
        desired.replace_all(origin, ())
    if settings.pod_manifest_path is not None:
        yield "manifests", follow_manifests(settings.pod_manifest_path, settings.node_name, desired)
    if settings.manifest_url:
        yield "manifest URL", follow_manifest_url(settings, desired)


async def follow_api(
    api: Api,
    node_name: str,
    desired: DesiredPods,
    mirrors: Mirrors,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """This node's pods in the API server, for as long as the agent lives."""
    await _ApiPods(api, f"spec.nodeName={node_name}", desired, mirrors, sleep).run()


class _ApiPods:
    def __init__(
        self,
        api: Api,
        selector: str,
        desired: DesiredPods,
        mirrors: Mirrors,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._api = api
        self._selector = selector
        self._desired = desired
        self._mirrors = mirrors
        self._sleep = sleep
        self._asks = PodsApi(api)
        self._doubts = 0
        """Lists in a row that were not believed."""

    async def run(self) -> None:
        while True:
            await self._follow_until_doubt()
            wait_s = min(DOUBT_INITIAL_S * 2 ** min(self._doubts - 1, 10), DOUBT_MAXIMUM_S)
            await self._api.link.pause(wait_s, self._sleep)

    async def _follow_until_doubt(self) -> None:
        async with aclosing(list_watch(self._api, PODS, self._selector, sleep=self._sleep)) as events:
            async for event in events:
                match event:
                    case Listed():
                        if not await self._take(event):
                            return
                    case Upserted():
                        if (record := _record(event.object)) is not None:
                            self._put(record)
                    case Removed():
                        self._desired.remove(event.object.meta.uid, _record(event.object))
                        self._mirrors.removed(event.object.meta.uid)
                    case _:
                        continue

    def _put(self, record: PodRecord) -> None:
        if record.is_mirror:
            self._mirrors.seen(record)
        else:
            self._desired.upsert(record)

    async def _take(self, listed: Listed) -> bool:
        """Make the list the desired set. False: it lacks pods that may not be gone; only what it has is taken."""
        records = {record.uid: record for record in _records(listed.items, self._desired)}
        absent = [one for one in self._desired.all() if one.origin is Origin.API and one.uid not in records]
        roll = await call_roll(absent, self._asks)
        if roll.complete:
            self._desired.replace_all(Origin.API, (one for one in records.values() if not one.is_mirror))
            self._mirrors.listed(one for one in records.values() if one.is_mirror)
            if self._doubts:
                logger.info("the API server's list of pods is believed again")
            self._doubts = 0
            return True
        for record in records.values():
            self._put(record)
        for uid in roll.gone:
            self._desired.remove(uid)
        if not self._doubts:
            what = "it has them all the same" if roll.there else "it does not answer when asked for each"
            logger.warning(
                "the API server lists {} pods of this node and leaves out {}, but {}: the list is not believed and ends"
                " no pod",
                len(records),
                len(absent),
                what,
            )
        self._doubts += 1
        own_metrics.DOUBTED_LISTS.inc()
        return False


async def follow_manifests(folder: Path, node_name: str, desired: DesiredPods) -> None:
    """The static pods of a folder or file, for as long as the agent lives. Raises ConfigError where it is neither."""
    from agent.pods.manifests import watch_manifests  # only who has manifests pays for YAML and for their validation

    known = [record for record in desired.all() if record.origin is Origin.FILE]
    async with aclosing(watch_manifests(folder, node_name, known)) as sets:
        async for manifests in sets:
            desired.replace_all(Origin.FILE, manifests.pods)


async def follow_manifest_url(settings: Settings, desired: DesiredPods) -> None:
    """The static pods of the URL, for as long as the agent lives."""
    from agent.pods.manifest_url import ManifestUrl, watch_manifest_url

    source = ManifestUrl(settings.manifest_url, settings.manifest_url_header, settings.http_check_frequency)
    known = [record for record in desired.all() if record.origin is Origin.HTTP]
    async with aclosing(watch_manifest_url(source, settings.node_name, known)) as sets:
        async for pods in sets:
            desired.replace_all(Origin.HTTP, pods)


def _records(objects: Iterable[RawObject], desired: DesiredPods) -> Iterable[PodRecord]:
    """A pod that cannot be read stays as it is known, for the list does have it."""
    for raw in objects:
        record = _record(raw) or desired.get(raw.meta.uid)
        if record is not None:
            yield record


def _record(found: RawObject) -> PodRecord | None:
    try:
        return PodRecord.decode(found.raw, Origin.API)
    except msgspec.ValidationError as error:
        log = logger.bind(pod=f"{found.meta.namespace}/{found.meta.name}")
        log.error("the API server's pod is not readable: {}", error)
        return None
