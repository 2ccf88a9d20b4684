"""What a container's cgroup is told of memory beside its limit, on version 2."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from agent.model.pod import Pod
from agent.pods.translate.context import MemoryRules, TranslateContext
from agent.pods.translate.memory import memory_files
from agent.pods.translate.resources import container_resources
from tests.unit.pods.pods import container_pod, make_pod

MIB, GIB = 1 << 20, 1 << 30
QOS = MemoryRules(qos=True, allocatable_bytes=8 * GIB)
TIERED = replace(QOS, protect=True)
SWAP = MemoryRules(swap=True, limited_swap=True, capacity_bytes=8 * GIB, swap_bytes=4 * GIB)


def pod(requests: dict[str, str] | None = None, limits: dict[str, str] | None = None, **spec: Any) -> Pod:
    resources = {"requests": requests or {}, "limits": limits or {}}
    if not spec:
        return container_pod(resources=resources)
    return make_pod(containers=[{"name": "main", "image": "i", "resources": resources}], **spec)


def files(made: Pod, rules: MemoryRules) -> dict[str, str]:
    return memory_files(made, made.spec.containers[0], rules)


GUARANTEED = pod({"cpu": "1", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi"})
BURSTABLE = pod({"memory": "1Gi"}, {"memory": "2Gi"})


def test_nothing_is_said_where_nothing_is_asked_for() -> None:
    assert files(BURSTABLE, MemoryRules()) == {}


@pytest.mark.parametrize(
    ("made", "high"),
    [
        (BURSTABLE, (GIB + int(GIB * 0.9)) // 4096 * 4096),
        (pod({"memory": "1Gi"}), (GIB + int(7 * GIB * 0.9)) // 4096 * 4096),
        (pod(), None),
        (GUARANTEED, None),
        (pod(limits={"memory": "1Gi"}), None),
    ],
)
def test_a_container_is_throttled_before_its_limit_or_the_nodes(made: Pod, high: int | None) -> None:
    assert files(made, QOS).get("memory.high") == (None if high is None else str(high))


def test_what_is_requested_is_protected_where_the_owner_wants_it() -> None:
    assert (files(GUARANTEED, QOS)["memory.min"], files(GUARANTEED, QOS)["memory.low"]) == ("0", "0")
    assert (files(GUARANTEED, TIERED)["memory.min"], files(GUARANTEED, TIERED)["memory.low"]) == (str(GIB), "0")
    assert (files(BURSTABLE, TIERED)["memory.min"], files(BURSTABLE, TIERED)["memory.low"]) == ("0", str(GIB))


@pytest.mark.parametrize(
    ("made", "swap"),
    [
        (BURSTABLE, GIB // 2),
        (pod({"memory": "512Mi"}), GIB // 4),
        (GUARANTEED, 0),
        (pod(), 0),
        (pod({"cpu": "1", "memory": "1Gi"}, {"memory": "1Gi"}), 0),
        (pod({"cpu": "1"}), 0),
        (pod({"memory": "9Gi"}), 0),
        (pod({"memory": "1Gi"}, priority=2_000_000_000), 0),
    ],
)
def test_only_burstable_pods_swap_in_proportion_to_their_request(made: Pod, swap: int) -> None:
    assert files(made, SWAP) == {"memory.swap.max": str(swap)}
    assert files(made, replace(SWAP, limited_swap=False)) == {"memory.swap.max": "0"}


def test_the_runtime_is_given_them_with_the_resources() -> None:
    context = TranslateContext(node_name="n", memory_capacity_bytes=8 * GIB, memory=SWAP)
    found = container_resources(BURSTABLE, BURSTABLE.spec.containers[0], context)
    assert dict(found.unified) == {"memory.swap.max": str(GIB // 2)}
