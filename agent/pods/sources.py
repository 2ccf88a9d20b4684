"""Where desired pods come from: the API server's list and watch, a folder of manifests, and a URL.

In: the streams. Out: orders to the desired set, in the order in which they came; mirror pods, which are pictures of
static ones, go to who keeps these. What cannot be read is said and left as it was; it never takes a pod away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

import msgspec
from loguru import logger

from agent.kube.rest import Api
from agent.kube.watch import Listed, RawObject, Removed, Upserted, list_watch
from agent.model.record import Origin, PodRecord
from agent.pods.desired import DesiredPods
from agent.pods.manifest_url import ManifestUrl, watch_manifest_url
from agent.pods.manifests import watch_manifests

PODS = "/api/v1/pods"
CONFIRM_EMPTY_S = 5.0
"""A list that would end every pod is believed when a second one, this much later, says the same."""


class Mirrors(Protocol):
    """`agent.pods.mirrors.Mirrors`, the side of the API server."""

    def listed(self, mirrors: Iterable[PodRecord]) -> None: ...
    def seen(self, mirror: PodRecord) -> None: ...
    def removed(self, uid: str) -> None: ...


async def follow_api(
    api: Api,
    node_name: str,
    desired: DesiredPods,
    mirrors: Mirrors,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """This node's pods in the API server, for as long as the agent lives."""
    selector = f"spec.nodeName={node_name}"
    async with aclosing(list_watch(api, PODS, selector, sleep=sleep)) as events:
        async for event in events:
            match event:
                case Listed():
                    if not event.items and any(record.origin is Origin.API for record in desired.all()):
                        logger.warning("the API server lists no pods of this node: asking once more before they end")
                        await sleep(CONFIRM_EMPTY_S)
                        event = await _listed_again(api, selector, sleep)
                    records = tuple(_records(event.items, desired))
                    desired.replace_all(Origin.API, (record for record in records if not record.is_mirror))
                    mirrors.listed(record for record in records if record.is_mirror)
                case Upserted():
                    if (record := _record(event.object)) is None:
                        continue
                    if record.is_mirror:
                        mirrors.seen(record)
                    else:
                        desired.upsert(record)
                case Removed():
                    desired.remove(event.object.meta.uid, _record(event.object))
                    mirrors.removed(event.object.meta.uid)
                case _:
                    continue


async def _listed_again(api: Api, selector: str, sleep: Callable[[float], Awaitable[None]]) -> Listed:
    async with aclosing(list_watch(api, PODS, selector, sleep=sleep)) as events:
        async for event in events:
            if isinstance(event, Listed):
                return event
    raise AssertionError("a watch never ends")


async def follow_manifests(folder: Path, node_name: str, desired: DesiredPods) -> None:
    """The static pods of a folder or file, for as long as the agent lives. Raises ConfigError where it is neither."""
    known = [record for record in desired.all() if record.origin is Origin.FILE]
    async with aclosing(watch_manifests(folder, node_name, known)) as sets:
        async for manifests in sets:
            desired.replace_all(Origin.FILE, manifests.pods)


async def follow_manifest_url(source: ManifestUrl, node_name: str, desired: DesiredPods) -> None:
    """The static pods of a URL, for as long as the agent lives."""
    known = [record for record in desired.all() if record.origin is Origin.HTTP]
    async with aclosing(watch_manifest_url(source, node_name, known)) as sets:
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
