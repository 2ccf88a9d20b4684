"""The own Node as pods' admission sees it, also without an API server: what was last seen is in the record.

In: the Node as this machine would register it, and every state of it that the node controller sees. Out: labels,
taints, allocatable, and those annotations that are policies. Before anything was ever seen, it is the Node that is
about to be registered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from loguru import logger

from agent.config import Settings
from agent.errors import EdgeletError, Retryable
from agent.model.meta import Quantity
from agent.model.node import NodeFacts, NodeTaint
from agent.model.objects import ObjectReference
from agent.node import status
from agent.node.allocatable import Allocatable
from agent.node.facts import MachineFacts
from agent.node.policies import NodePolicing
from agent.node.ports import Events
from agent.policies.node import ANNOTATIONS
from agent.store.base import Store

KEY = "node/seen"
ASK_WITHIN_S = 2.0
SHOW_WITHIN_S = 2.0
"""From the start, for the Node of the API server: its labels may have changed while the agent was down."""

Json = dict[str, Any]


class _Meta(msgspec.Struct, frozen=True, omit_defaults=True):
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    """Policies only."""
    uid: str = ""
    creationTimestamp: str | None = None


class _Spec(msgspec.Struct, frozen=True, omit_defaults=True):
    taints: tuple[NodeTaint, ...] = ()


class _Status(msgspec.Struct, frozen=True, omit_defaults=True):
    allocatable: dict[str, Quantity] = {}


class _Seen(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of a v1.Node that is kept."""

    metadata: _Meta = _Meta()
    spec: _Spec = _Spec()
    status: _Status = _Status()


_decoder = msgspec.json.Decoder(_Seen)


class KnownNode:
    """Fits `agent.pods.admission.gate.NodeView`."""

    def __init__(
        self,
        facts: MachineFacts,
        settings: Settings,
        store: Store,
        fetch: Callable[[], Awaitable[bytes]] | None = None,
        policies: NodePolicing | None = None,
        room: Allocatable | None = None,
    ) -> None:
        """`fetch` asks the API server for the own Node; None: there is none. `policies` hears of the annotations.
        `room`: what is allocatable now, where that changes.
        """
        self._name = settings.node_name
        self._store = store
        self._fetch = fetch
        self._policies = policies
        self._room = room
        own: Json = {
            "metadata": {"labels": status.labels(facts, settings)},
            "spec": {"taints": status.taints(settings)},
            "status": {"allocatable": status.allocatable(facts, settings)},
        }
        self._own = msgspec.convert(own, _Seen)
        self._seen = self._own
        self._news = asyncio.Event()
        self._shown = asyncio.Event()
        if fetch is None:
            self._shown.set()

    async def load(self) -> None:
        """What an agent before this one saw. A record that cannot be read only means that nothing was seen yet."""
        try:
            row = await self._store.get(KEY)
            if row is not None:
                self._seen = _decoder.decode(row.value)
                self._tell_policies()
        except (Retryable, msgspec.DecodeError) as error:
            logger.warning("the Node as it was last seen cannot be read: {}", error)

    @property
    def uid(self) -> str:
        """Of the Node as it was last seen in the API server; empty: it never was."""
        return self._seen.metadata.uid

    def told(self) -> Mapping[str, Quantity]:
        """What the API server last had as allocatable; empty: it never was seen."""
        return self._seen.status.allocatable if self.uid else {}

    def say_foreign(self, why: str, events: Events) -> None:
        """Another cluster answers: whoever looks at the Node in its own one finds that in its events afterwards."""
        if why:
            node = ObjectReference(kind="Node", name=self._name, uid=self.uid or self._name)
            events.record(node, "Warning", "ForeignCluster", f"What answered in the API server's place: {why}")

    def facts(self) -> NodeFacts:
        # What this machine has it knows best; what others added (device plugins) only the API server knows.
        own = self._own.status.allocatable if self._room is None else self._room.told()
        allocatable: Mapping[str, Quantity] = {**self._seen.status.allocatable, **own}
        labels = self._seen.metadata.labels
        return NodeFacts(self._name, labels, self._seen.spec.taints, allocatable, self._room)

    async def current(self) -> NodeFacts:
        try:
            async with asyncio.timeout(SHOW_WITHIN_S):
                await self._shown.wait()
        except TimeoutError:
            self._shown.set()
        return self.facts()

    async def ask(self) -> NodeFacts:
        if self._fetch is not None:
            try:
                async with asyncio.timeout(ASK_WITHIN_S):
                    self._take(_decoder.decode(await self._fetch()))
            except (EdgeletError, TimeoutError, msgspec.DecodeError) as error:
                logger.debug("the Node is taken as it was last seen: {}", error or "no answer in time")
        return self.facts()

    def named(self, node: Json | None) -> Json | None:
        """The Node with what the API server gave it, also where an agent before this one saw that."""
        if node is None or "uid" in node["metadata"]:
            return node
        meta, seen = node["metadata"], self._seen.metadata
        given = {"uid": seen.uid, "creationTimestamp": seen.creationTimestamp} if seen.uid else {}
        return {**node, "metadata": {**meta, **given, "labels": {**seen.labels, **(meta.get("labels") or {})}}}

    def saw(self, node: Json) -> None:
        """The Node as the API server has it now."""
        self._take(msgspec.convert(node, _Seen))

    async def run(self) -> None:
        """Write what was seen, for as long as the agent lives."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._store.put(KEY, msgspec.json.encode(self._seen))
            except Retryable as error:
                logger.warning("the Node as it was last seen is not recorded: {}", error)

    def _take(self, seen: _Seen) -> None:
        policies = {name: text for name, text in seen.metadata.annotations.items() if name in ANNOTATIONS}
        seen = msgspec.structs.replace(seen, metadata=msgspec.structs.replace(seen.metadata, annotations=policies))
        self._shown.set()
        if seen != self._seen:
            self._seen = seen
            self._news.set()
            self._tell_policies()

    def _tell_policies(self) -> None:
        if self._policies is not None:
            self._policies.saw(self._seen.metadata.annotations)
