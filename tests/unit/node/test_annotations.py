"""Annotations of the own Node: told soon, not often, and again where somebody took them off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.kube.credentials import Credentials
from agent.kube.rest import Api
from agent.node.annotations import EVERY_S, NodeAnnotations
from tests.fakes.apiserver import FakeApiServer, running_api_server
from tests.fakes.clock import FakeClock
from tests.fakes.waiting import eventually

NAME = "example.com/status"
PATH = "/api/v1/nodes/edge-1"


class Lab:
    def __init__(self, server: FakeApiServer, api: Api) -> None:
        self.server, self.clock = server, FakeClock()
        self.annotations = NodeAnnotations("edge-1", self.clock)
        self.running = asyncio.ensure_future(self.annotations.run(api))

    @property
    def node(self) -> dict[str, Any]:
        return self.server.get("nodes", "edge-1") or {}

    def shown(self) -> str | None:
        found: str | None = (self.node["metadata"].get("annotations") or {}).get(NAME)
        return found

    @property
    def patches(self) -> int:
        return len(self.server.seen("PATCH", PATH))


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with running_api_server() as server:
        server.put("nodes", "edge-1", metadata={"name": "edge-1", "annotations": {"other": "stays"}})
        api = Api(await Credentials.load(server.kubeconfig(tmp_path)))
        made = Lab(server, api)
        try:
            yield made
        finally:
            made.running.cancel()
            await asyncio.gather(made.running, return_exceptions=True)
            await api.close()


async def test_of_many_changes_the_last_one_is_told_and_none_before_its_time(lab: Lab) -> None:
    lab.annotations.annotate(NAME, "early")
    lab.annotations.seen(lab.node)
    await eventually(lambda: lab.shown() == "early")
    for text in ("one", "two", "three"):
        lab.annotations.annotate(NAME, text)
    await lab.clock.advance(EVERY_S - 1)
    assert lab.patches == 1
    await lab.clock.advance(1)
    await eventually(lambda: lab.shown() == "three")
    assert lab.patches == 2
    assert lab.node["metadata"]["annotations"]["other"] == "stays"


async def test_nothing_is_told_before_there_is_a_node_and_nothing_twice(lab: Lab) -> None:
    lab.annotations.annotate(NAME, "text")
    await lab.clock.advance(60)
    assert lab.patches == 0
    lab.annotations.seen(lab.node)
    await eventually(lambda: lab.shown() == "text")
    lab.annotations.seen(lab.node)
    lab.annotations.annotate(NAME, "text")
    await lab.clock.advance(60)
    assert lab.patches == 1


async def test_what_somebody_took_off_comes_again_and_what_is_over_goes(lab: Lab) -> None:
    lab.annotations.annotate(NAME, "text")
    lab.annotations.seen(lab.node)
    await eventually(lambda: lab.shown() == "text")
    await lab.clock.advance(EVERY_S)
    lab.annotations.seen({"metadata": {}})
    await eventually(lambda: lab.patches == 2)
    lab.annotations.annotate(NAME, None)
    await lab.clock.advance(EVERY_S)
    await eventually(lambda: lab.shown() is None)
