"""Annotations of the Node that tell what this machine is about: each change soon, and not more often than it must be.

In: annotations as they are wanted, and the Node as the API server shows it. Out: PATCHes of its metadata, which a
node's own identity may make. What others annotate is left alone.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from loguru import logger

from agent.clock import Clock
from agent.errors import EdgeletError
from agent.kube.rest import Api
from agent.node.controller import NODES

EVERY_S = 5.0
"""At least between two PATCHes: every change of a Node goes to all who watch Nodes."""

Json = dict[str, Any]


class NodeAnnotations:
    def __init__(self, node_name: str, clock: Clock) -> None:
        self._path = f"{NODES}/{node_name}"
        self._clock = clock
        self._wanted: dict[str, str | None] = {}
        self._shown: dict[str, str] | None = None
        """None: no Node was seen yet."""
        self._news = asyncio.Event()

    def annotate(self, name: str, value: str | None) -> None:
        """Have it so; None: have no such annotation."""
        if name not in self._wanted or self._wanted[name] != value:
            self._wanted[name] = value
            self._news.set()

    def seen(self, node: Json) -> None:
        """The Node as the API server has it now."""
        self._shown = node["metadata"].get("annotations") or {}
        if self._lacking():
            self._news.set()

    async def run(self, api: Api) -> None:
        """For as long as the agent lives."""
        while True:
            await self._news.wait()
            self._news.clear()
            if not (lacking := self._lacking()) or self._shown is None:
                continue
            try:
                await api.patch(self._path, msgspec.json.encode({"metadata": {"annotations": lacking}}))
            except EdgeletError as error:
                logger.debug("the Node's annotations are not told: {}", error)
                self._news.set()
                await api.link.pause(EVERY_S, self._clock.sleep)
                continue
            self._shown = {name: value for name, value in {**self._shown, **lacking}.items() if value is not None}
            await self._clock.sleep(EVERY_S)

    def _lacking(self) -> dict[str, str | None]:
        shown = self._shown or {}
        return {name: value for name, value in self._wanted.items() if shown.get(name) != value}
