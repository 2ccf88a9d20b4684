"""Who goes for a pod that the node cannot do without."""

from __future__ import annotations

import pytest

from agent.pods.admission.claim import Claim
from agent.pods.admission.preemption import may_preempt, victims
from agent.pods.qos import QosClass

CRITICAL = Claim(critical=True)


def one(qos: QosClass, cpu: int = 0, memory: int = 0, **rest: object) -> Claim:
    return Claim(requests={"cpu": cpu, "memory": memory}, qos=qos, **rest)  # type: ignore[arg-type]


BEST, BURST, SURE = QosClass.BEST_EFFORT, QosClass.BURSTABLE, QosClass.GUARANTEED

CASES: dict[str, tuple[dict[str, Claim], dict[str, int], set[str] | None]] = {
    "one that is enough": ({"a": one(BURST, 100), "b": one(BURST, 300)}, {"cpu": 200}, {"b"}),
    "the smaller of two that are enough": ({"a": one(BURST, 300, 9), "b": one(BURST, 300, 1)}, {"cpu": 200}, {"b"}),
    "several where none is enough": ({"a": one(BURST, 100), "b": one(BURST, 150)}, {"cpu": 200}, {"a", "b"}),
    "burstable before guaranteed": ({"a": one(SURE, 500), "b": one(BURST, 500)}, {"cpu": 200}, {"b"}),
    "best-effort where only a place is missing": ({"a": one(BEST), "b": one(BURST, 5)}, {"pods": 1}, {"a"}),
    "guaranteed ones only for the rest": ({"a": one(SURE, 500), "b": one(BURST, 100)}, {"cpu": 200}, {"a"}),
    "not enough at all": ({"a": one(BURST, 100)}, {"cpu": 200}, None),
    "nobody less important": ({"a": one(BURST, 500, critical=True)}, {"cpu": 200}, None),
}


@pytest.mark.parametrize(("here", "missing", "wanted"), CASES.values(), ids=CASES)
def test_who_goes(here: dict[str, Claim], missing: dict[str, int], wanted: set[str] | None) -> None:
    chosen = victims(CRITICAL, here, missing)
    assert (None if chosen is None else set(chosen)) == wanted


def test_between_critical_pods_the_priority_decides() -> None:
    high, low = Claim(critical=True, priority=2_000_001_000), Claim(critical=True, priority=2_000_000_000)
    assert may_preempt(high, low)
    assert not may_preempt(low, high)
    assert not may_preempt(high, Claim(critical=True))
