"""What a Node says of its provider."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent.errors import Retryable
from agent.node.ports import NodeImage, RuntimeHealth
from agent.providers.contract import NodeStatusUpdates
from agent.providers.node_side import NodeSide
from tests.fakes.virtual_time import in_virtual_time
from tests.unit.providers.test_registry import Mine


class Pinged(Mine):
    def __init__(self, error: Exception | None = None, slow_s: float = 0) -> None:
        self.error = error
        self.slow_s = slow_s

    async def ping(self) -> None:
        await asyncio.sleep(self.slow_s)
        if self.error is not None:
            raise self.error


class Runtime(Mine):
    async def health(self) -> RuntimeHealth:
        return RuntimeHealth(name="mine", version="3")

    async def images(self) -> tuple[NodeImage, ...]:
        return (NodeImage(("busybox",), 4),)


class Telling(Mine):
    updates: NodeStatusUpdates

    def notify_node_status(self, updates: NodeStatusUpdates) -> None:
        self.updates = updates

    async def configure_node(self, node: dict[str, Any]) -> None:
        node["metadata"]["labels"]["zoo"] = "yes"
        node["status"]["capacity"]["cpu"] = "64"


def node() -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "m", "lastTransitionTime": "t0"}
    return {"metadata": {"labels": {}}, "status": {"capacity": {"cpu": "2"}, "conditions": [ready]}}


def side(provider: Any, changed: list[bool] | None = None, wall: list[float] | None = None) -> NodeSide:
    return NodeSide(
        provider, "zoo", lambda: None if changed is None else changed.append(True), lambda: wall[0] if wall else 0.0
    )


@pytest.mark.parametrize(
    ("provider", "down"),
    [
        (Mine(), ""),
        (Pinged(), ""),
        (Pinged(Retryable("the cloud is away")), "the cloud is away"),
        (Pinged(KeyError("region")), "KeyError: 'region'"),
        (Pinged(slow_s=9), "the provider did not answer within 5 s"),
    ],
)
def test_a_provider_is_healthy_unless_its_ping_fails(provider: Any, down: str) -> None:
    @in_virtual_time
    async def run() -> None:
        assert await side(provider).health() == RuntimeHealth(down=down, name="zoo")
        assert await side(provider).images() == ()

    run()


@in_virtual_time
async def test_a_provider_that_tells_its_health_is_asked_for_it() -> None:
    assert await side(Runtime()).health() == RuntimeHealth(name="mine", version="3")
    assert await side(Runtime()).images() == (NodeImage(("busybox",), 4),)


@in_virtual_time
async def test_a_provider_changes_the_node_before_it_is_sent() -> None:
    changed = node()
    await side(Telling()).configure(changed)
    assert changed["metadata"]["labels"] == {"zoo": "yes"}
    assert changed["status"]["capacity"] == {"cpu": "64"}


@in_virtual_time
async def test_news_of_the_node_is_laid_over_what_the_agent_says_and_dated_by_its_change() -> None:
    provider, wall = Telling(), [1_700_000_000.0]
    changed: list[bool] = []
    told = side(provider, changed, wall)
    provider.updates({"conditions": [{"type": "Fenced", "status": "True"}], "phase": "odd"})
    assert changed == [True]
    first = node()
    await told.configure(first)
    assert first["status"]["phase"] == "odd"
    ready, fenced = first["status"]["conditions"]
    assert (ready["reason"], ready["lastTransitionTime"]) == ("KubeletReady", "t0")
    assert (fenced["type"], fenced["status"], fenced["reason"]) == ("Fenced", "True", "ProviderSays")
    wall[0] += 60
    second = node()
    await told.configure(second)
    again = second["status"]["conditions"][1]
    assert again["lastTransitionTime"] == fenced["lastTransitionTime"]
    assert again["lastHeartbeatTime"] != fenced["lastHeartbeatTime"]
    provider.updates({"conditions": [{"type": "Fenced", "status": "False"}, {"type": "Ready", "status": "False"}]})
    third = node()
    await told.configure(third)
    ready, fenced = third["status"]["conditions"]
    assert (ready["status"], fenced["status"]) == ("False", "False")
    assert fenced["lastTransitionTime"] == fenced["lastHeartbeatTime"]
