"""Which pods a node takes that runs short."""

from __future__ import annotations

from typing import Any

import pytest

from agent.pods.admission.claim import claim
from agent.pods.admission.pressure import under_pressure
from tests.unit.pods.pods import container_pod, make_pod

MEMORY, DISK, BOTH = ("MemoryPressure",), ("DiskPressure",), ("MemoryPressure", "DiskPressure")
TOLERATES = {"tolerations": [{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]}
OTHER = {"tolerations": [{"key": "node.kubernetes.io/disk-pressure", "operator": "Exists"}]}
BURSTABLE = container_pod(resources={"requests": {"memory": "1Mi"}})


@pytest.mark.parametrize(
    ("spec", "conditions", "message"),
    [
        ({}, (), ""),
        ({}, MEMORY, "The node had condition: [MemoryPressure]. "),
        (TOLERATES, MEMORY, ""),
        (OTHER, MEMORY, "The node had condition: [MemoryPressure]. "),
        (TOLERATES, BOTH, "The node had condition: [MemoryPressure DiskPressure]. "),
        (OTHER, DISK, "The node had condition: [DiskPressure]. "),
        ({}, ("PIDPressure",), "The node had condition: [PIDPressure]. "),
        ({"priority": 2_000_000_000}, BOTH, ""),
    ],
)
def test_a_best_effort_pod(spec: dict[str, Any], conditions: tuple[str, ...], message: str) -> None:
    pod = make_pod(**spec)
    found = under_pressure(pod, claim(pod), conditions)
    assert (found.message if found is not None else "") == message
    assert found is None or found.reason == "Evicted"


def test_one_with_requests_is_taken_while_only_memory_is_short() -> None:
    assert under_pressure(BURSTABLE, claim(BURSTABLE), MEMORY) is None
    assert under_pressure(BURSTABLE, claim(BURSTABLE), DISK) is not None
