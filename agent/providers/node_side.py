"""What the Node says of its provider: whether it can run pods, and what the provider changes in the Node.

In: the provider. Out: the health that the Node's Ready condition follows, and a v1.Node that was changed before it is
sent. A provider that says nothing of itself counts as healthy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from agent.errors import EdgeletError
from agent.model.status import timestamp
from agent.node.ports import NodeImage, RuntimeHealth
from agent.providers.contract import ConfiguresNode, NotifiesNodeStatus, Pings, Provider, TellsHealth
from agent.providers.foreign import asked

PING_S = 5.0
"""A provider that does not answer for this long cannot run pods."""

Json = dict[str, Any]


class NodeSide:
    """Fits the Node controller's `Runtime`, and its `configure`."""

    def __init__(self, provider: Provider, name: str, changed: Callable[[], None], wall: Callable[[], float]) -> None:
        """`name` is said to be the Node's runtime; `changed` is told that the Node is to be looked at now."""
        self._provider = provider
        self._name = name
        self._changed = changed
        self._wall = wall
        self._told: Json = {}
        self._said: dict[str, tuple[str, str]] = {}
        """Conditions that the provider did not date: status, and since when."""
        if isinstance(provider, NotifiesNodeStatus):
            provider.notify_node_status(self._take)

    async def health(self) -> RuntimeHealth:
        if isinstance(self._provider, TellsHealth):
            return await self._provider.health()
        down = ""
        if isinstance(self._provider, Pings):
            try:
                async with asyncio.timeout(PING_S):
                    await asked(self._provider.ping())
            except TimeoutError:
                down = f"the provider did not answer within {PING_S:g} s"
            except EdgeletError as error:
                down = str(error)
        return RuntimeHealth(down=down, name=self._name)

    async def images(self) -> tuple[NodeImage, ...]:
        return await self._provider.images() if isinstance(self._provider, TellsHealth) else ()

    async def configure(self, node: Json) -> None:
        if isinstance(self._provider, ConfiguresNode):
            await asked(self._provider.configure_node(node))
        status: Json = node["status"]
        told = dict(self._told)
        conditions = {one["type"]: one for one in (*status["conditions"], *told.pop("conditions", ()))}
        status.update(told)
        status["conditions"] = [self._complete(one) for one in conditions.values()]

    def _take(self, part: Json) -> None:
        self._told = part
        self._changed()

    def _complete(self, condition: Json) -> Json:
        """With every field that a condition has; dated by when its status was first said."""
        now = timestamp(self._wall())
        # Never empty: the API server leaves empty fields out, and they would look as if somebody had changed them.
        whole = {"status": "Unknown", "reason": "ProviderSays", "message": "said by the provider", **condition}
        if "lastTransitionTime" not in whole:
            said, since = self._said.get(whole["type"], ("", ""))
            self._said[whole["type"]] = (whole["status"], since if said == whole["status"] else now)
            whole["lastTransitionTime"] = self._said[whole["type"]][1]
        return {"lastHeartbeatTime": now, **whole}
