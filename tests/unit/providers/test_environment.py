"""A provider's pods get the environment that a kubelet would give them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.config import Settings
from agent.errors import Permanent
from agent.kube.events import LoggedEvents
from agent.kube.tokens import StandaloneTokens
from agent.model.record import PodRecord
from agent.providers.contract import MachineFacts, ProviderContext
from agent.providers.environment import environment
from tests.fakes.store import MemoryStore
from tests.unit.pods.scene import FakeObjects

ENV = [
    {"name": "PLAIN", "value": "$(KEY)!"},
    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
    {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
]
FROM = [{"secretRef": {"name": "one"}}]
TOKEN = {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}


def record(**container: Any) -> PodRecord:
    containers = [{"name": "main", "image": "i", **container}, {"name": "other", "image": "i"}]
    meta = {"name": "web", "namespace": "shop", "uid": "u"}
    spec = {"containers": containers, "nodeName": "n", "volumes": [TOKEN]}
    return PodRecord.decode(msgspec.json.encode({"metadata": meta, "spec": spec}))


def context(objects: FakeObjects) -> ProviderContext:
    return ProviderContext(
        settings=Settings("n"),
        store=MemoryStore(),
        objects=objects,
        tokens=StandaloneTokens(),
        events=LoggedEvents(),
        facts=MachineFacts(1, {"cpu": "4"}),
        node_ips=("10.0.0.1",),
        health_changed=lambda: None,
    )


async def test_every_reference_is_resolved_for_each_container() -> None:
    objects = FakeObjects()
    objects.put("secrets", "one", data={"KEY": "dmFsdWU="})
    found = await environment(context(objects), record(env=ENV, envFrom=FROM))
    assert found == {
        "main": {"KEY": "value", "PLAIN": "value!", "NODE": "n", "HOST": "10.0.0.1", "CPUS": "4"},
        "other": {},
    }


async def test_a_needed_object_that_is_missing_is_said_by_name() -> None:
    with pytest.raises(Permanent, match=r'^secret "one" not found$'):
        await environment(context(FakeObjects()), record(envFrom=FROM))
