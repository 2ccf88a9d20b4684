"""Where desired pods come from: the API server's list and watch, and a folder of manifests.

In: the two streams. Out: orders to the desired set, in the order in which they came. What cannot be read is said and
left as it was; it never takes a pod away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from pathlib import Path

import msgspec
from loguru import logger

from agent.kube.rest import Api
from agent.kube.watch import Listed, RawObject, Removed, Upserted, list_watch
from agent.model.record import Origin, PodRecord
from agent.pods.desired import DesiredPods
from agent.pods.manifests import watch_manifests

PODS = "/api/v1/pods"
CONFIRM_EMPTY_S = 5.0
"""A list that would end every pod is believed when a second one, this much later, says the same."""


async def follow_api(
    api: Api, node_name: str, desired: DesiredPods, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
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
                    desired.replace_all(Origin.API, _records(event.items, desired))
                case Upserted():
                    if (record := _record(event.object)) is not None:
                        desired.upsert(record)
                case Removed():
                    desired.remove(event.object.meta.uid, _record(event.object))
                case _:
                    continue


async def _listed_again(api: Api, selector: str, sleep: Callable[[float], Awaitable[None]]) -> Listed:
    async with aclosing(list_watch(api, PODS, selector, sleep=sleep)) as events:
        async for event in events:
            if isinstance(event, Listed):
                return event
    raise AssertionError("a watch never ends")


async def follow_manifests(folder: Path, node_name: str, desired: DesiredPods) -> None:
    """The static pods of a folder, for as long as the agent lives. Raises ConfigError where it is not a folder."""
    known = [record for record in desired.all() if record.origin is Origin.FILE]
    async with aclosing(watch_manifests(folder, node_name, known)) as sets:
        async for manifests in sets:
            desired.replace_all(Origin.FILE, manifests.pods)


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
