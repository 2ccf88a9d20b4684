"""The own Node as admission sees it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace

from agent.config import Taint
from agent.errors import Retryable
from agent.model.node import NodeTaint
from agent.node.allocatable import Allocatable
from agent.node.known import KnownNode
from agent.node.policies import NodePolicing
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import PATIENCE_S
from tests.unit.node.machine import FACTS, SETTINGS

SEEN: dict[str, Any] = {
    "metadata": {"name": "edge-1", "labels": {"site": "north"}},
    "spec": {"taints": [{"key": "k", "effect": "NoExecute", "timeAdded": "2024-01-01T00:00:00Z"}]},
    "status": {"allocatable": {"cpu": "64", "x.io/gpu": "2"}},
}


async def run_until_written(known: KnownNode, store: MemoryStore) -> None:
    task = asyncio.create_task(known.run())
    async with asyncio.timeout(PATIENCE_S):
        while not store.writes:  # noqa: ASYNC110  the writer is another task
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_before_it_is_registered_the_node_is_what_it_will_be() -> None:
    settings = replace(SETTINGS, register_with_taints=(Taint("k", "v", "NoSchedule"),))
    known = KnownNode(FACTS, settings, MemoryStore())
    await known.load()
    facts = known.facts()
    assert facts.labels["kubernetes.io/hostname"] == facts.name == "edge-1"
    assert facts.taints == (NodeTaint(key="k", value="v", effect="NoSchedule"),)
    assert facts.allocatable["cpu"] == "4"
    assert await known.ask() == facts


async def test_what_others_made_of_the_node_counts_but_not_its_size() -> None:
    known = KnownNode(FACTS, SETTINGS, MemoryStore())
    known.saw(SEEN)
    assert known.facts().labels == {"site": "north"}
    assert known.facts().taints == (NodeTaint(key="k", effect="NoExecute"),)
    assert known.facts().allocatable["x.io/gpu"] == "2"
    assert known.facts().allocatable["cpu"] == "4"


async def test_a_restart_without_network_knows_what_was_seen() -> None:
    store = MemoryStore()
    known = KnownNode(FACTS, SETTINGS, store)
    known.saw(SEEN)
    await run_until_written(known, store)
    again = KnownNode(FACTS, SETTINGS, store)
    await again.load()
    assert again.facts() == known.facts()


async def test_a_state_of_the_node_with_nothing_new_is_not_written() -> None:
    store = MemoryStore()
    known = KnownNode(FACTS, SETTINGS, store)
    known.saw(SEEN)
    await run_until_written(known, store)
    known.saw({**SEEN, "status": {**SEEN["status"], "conditions": [{"type": "Ready"}]}})
    task = asyncio.create_task(known.run())
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    assert len(store.writes) == 1


async def test_asking_takes_the_answer_and_lives_without_one() -> None:
    answers: list[bytes | Exception] = [json.dumps(SEEN).encode(), Retryable("away")]

    async def fetch() -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    known = KnownNode(FACTS, SETTINGS, MemoryStore(), fetch)
    assert (await known.ask()).labels == {"site": "north"}
    assert (await known.ask()).labels == {"site": "north"}


async def test_a_record_that_is_no_node_means_that_nothing_was_seen() -> None:
    store = MemoryStore()
    await store.put("node/seen", b"[]")
    known = KnownNode(FACTS, SETTINGS, store)
    await known.load()
    assert known.facts().name == "edge-1"


async def test_after_a_start_the_api_servers_node_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch() -> bytes:
        raise Retryable("away")

    known = KnownNode(FACTS, SETTINGS, MemoryStore(), fetch)
    waiting = asyncio.create_task(known.current())
    await asyncio.sleep(0)
    assert not waiting.done()
    known.saw(SEEN)
    assert (await waiting).labels == {"site": "north"}
    # Without an API server once, and not for each pod.
    monkeypatch.setattr("agent.node.known.SHOW_WITHIN_S", 0.001)
    known = KnownNode(FACTS, SETTINGS, MemoryStore(), fetch)
    assert (await known.current()).name == "edge-1"
    monkeypatch.setattr("agent.node.known.SHOW_WITHIN_S", 3600)
    assert (await known.current()).name == "edge-1"


async def test_annotations_that_are_policies_are_known_after_a_restart_without_network_and_no_others() -> None:
    store, policies = MemoryStore(), NodePolicing(SETTINGS)
    known = KnownNode(FACTS, SETTINGS, store, policies=policies)
    written = {"edgelet.io/image-gc-high-threshold": "90", "example.com/counter": "1"}
    known.saw({**SEEN, "metadata": {**SEEN["metadata"], "annotations": written}})
    assert policies.settings.image_gc_high_threshold == 90
    await run_until_written(known, store)
    known.saw({**SEEN, "metadata": {**SEEN["metadata"], "annotations": {**written, "example.com/counter": "2"}}})
    assert b"counter" not in store.rows["node/seen"].value
    policies = NodePolicing(SETTINGS)
    await KnownNode(FACTS, SETTINGS, store, policies=policies).load()
    assert policies.settings.image_gc_high_threshold == 90


def test_allocatable_follows_the_policies() -> None:
    policies = NodePolicing(SETTINGS)
    known = KnownNode(FACTS, SETTINGS, MemoryStore(), policies=policies, room=Allocatable(FACTS, policies))
    written = {"edgelet.io/eviction-hard": "memory.available<1Gi"}
    known.saw({**SEEN, "metadata": {**SEEN["metadata"], "annotations": written}})
    assert known.facts().allocatable["memory"] == f"{6 * 2**20}Ki"
    assert known.facts().allocatable["x.io/gpu"] == "2"
