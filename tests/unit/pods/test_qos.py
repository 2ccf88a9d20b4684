from typing import Any

import pytest

from agent.pods.pod_totals import effective_requests
from agent.pods.qos import QosClass, qos_class
from tests.unit.pods.pods import make_pod

Resources = dict[str, dict[str, Any]]


def of(*containers: Resources, init: tuple[Resources, ...] = ()) -> QosClass:
    named = [{"name": f"c{index}", "resources": r} for index, r in enumerate(containers)]
    inits = [{"name": f"i{index}", "resources": r} for index, r in enumerate(init)]
    return qos_class(make_pod(containers=named, initContainers=inits))


BOTH: Resources = {"limits": {"cpu": "1", "memory": "1Gi"}}


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        (({},), QosClass.BEST_EFFORT),
        (({"limits": {"cpu": "0", "memory": "0"}},), QosClass.BEST_EFFORT),
        (({"requests": {"ephemeral-storage": "1Gi"}, "limits": {"hugepages-2Mi": "4Mi"}},), QosClass.BEST_EFFORT),
        ((BOTH,), QosClass.GUARANTEED),
        ((BOTH, BOTH), QosClass.GUARANTEED),
        (({**BOTH, "requests": {"cpu": "1000m", "memory": "1024Mi"}},), QosClass.GUARANTEED),
        (({**BOTH, "requests": {"cpu": "500m"}},), QosClass.BURSTABLE),
        ((BOTH, {}), QosClass.BURSTABLE),
        (({"limits": {"memory": "1Gi"}},), QosClass.BURSTABLE),
        (({"requests": {"cpu": "1m"}},), QosClass.BURSTABLE),
        (({"limits": {"cpu": "1"}}, {"limits": {"memory": "1Gi"}}), QosClass.BURSTABLE),
    ],
)
def test_the_class_follows_from_cpu_and_memory_of_every_container(
    containers: tuple[Resources, ...], expected: QosClass
) -> None:
    assert of(*containers) is expected


def test_an_init_container_without_limits_takes_the_guarantee_away() -> None:
    assert of(BOTH, init=(BOTH,)) is QosClass.GUARANTEED
    assert of(BOTH, init=({},)) is QosClass.BURSTABLE


def test_an_unset_request_is_its_limit_and_a_set_one_stays() -> None:
    container = make_pod(
        containers=[{"name": "c", "resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}}]
    ).spec.containers[0]
    assert effective_requests(container.resources) == {"cpu": "1", "memory": "1Gi"}
