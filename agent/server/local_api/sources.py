"""Where the local API's objects come from: the pods and the Node as the agent has them, the record, recent events.

In: the agent's parts. Out: for each resource all objects as they are now, as JSON with kind and apiVersion, and word
of changes. Secrets only where the setting says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from agent.errors import Gone, Retryable
from agent.server.local_api.collection import Key
from agent.server.local_api.resources import Resource
from agent.server.ports import PodStatuses
from agent.store.base import Store

RECORDED = frozenset({"configmaps", "secrets", "services", "persistentvolumeclaims", "persistentvolumes"})
WATCH_AGAIN_S = 1.0


class _Meta(msgspec.Struct):
    name: str = ""
    namespace: str = ""


class _Named(msgspec.Struct):
    metadata: _Meta


_named = msgspec.json.Decoder(_Named)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Sources(msgspec.Struct, frozen=True):
    """What the agent gives. `node` is its Node as it would tell it now (None: not known yet), `events` its own."""

    pods: PodStatuses
    store: Store
    node: Callable[[], dict[str, Any] | None]
    events: Callable[[], Iterable[dict[str, Any]]]

    async def read(self, resource: Resource) -> Mapping[Key, bytes]:
        """Raises Retryable."""
        match resource.plural:
            case "pods":
                return dict(map(_pod, self.pods.with_status()))
            case "nodes":
                node = self.node()
                return (
                    {} if node is None else {("", node["metadata"]["name"]): _whole(msgspec.json.encode(node), "Node")}
                )
            case "events":
                return {
                    (event["metadata"]["namespace"], event["metadata"]["name"]): msgspec.json.encode(event)
                    for event in self.events()
                }
        rows = await self.store.list(f"objects/{resource.plural}/")
        # A key with a query behind it stands for a selection, not for an object.
        return dict(_recorded(row.value, resource.kind) for row in rows if "?" not in row.key)

    async def follow(self, resource: Resource, changed: Callable[[], None]) -> None:
        """Tell of changes in the record, until cancelled; of the rest the agent itself tells."""
        while resource.plural in RECORDED:
            try:
                async with self.store.watch(f"objects/{resource.plural}/") as changes:
                    changed()
                    async for _ in changes:
                        changed()
            except (Retryable, Gone):
                pass
            await asyncio.sleep(WATCH_AGAIN_S)
        await asyncio.get_running_loop().create_future()


def _pod(pair: tuple[Any, Any]) -> tuple[Key, bytes]:
    record, status = pair
    found = _fields.decode(record.raw)
    if status is not None:
        found["status"] = msgspec.Raw(msgspec.json.encode(status))
    meta = record.pod.metadata
    return (meta.namespace, meta.name), _whole(msgspec.json.encode(found), "Pod")


def _recorded(raw: bytes, kind: str) -> tuple[Key, bytes]:
    meta = _named.decode(raw).metadata
    return (meta.namespace, meta.name), _whole(raw, kind)


def _whole(raw: bytes, kind: str) -> bytes:
    """With kind and apiVersion, in front as an API server has them."""
    found = _fields.decode(raw)
    head = {"kind": msgspec.Raw(msgspec.json.encode(kind)), "apiVersion": msgspec.Raw(b'"v1"')}
    return msgspec.json.encode({**head, **found})
