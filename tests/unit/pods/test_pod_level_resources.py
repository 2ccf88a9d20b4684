"""Resources of the pod as a whole: what they change for its class, its containers, its claim and what it is told."""

from typing import Any

import pytest

from agent.model.container import ResourceRequirements
from agent.model.pod import Pod
from agent.model.volume import ResourceFieldSelector
from agent.pods.admission.claim import pod_requests
from agent.pods.downward import NodeContext, resource
from agent.pods.qos import QosClass, qos_class
from agent.pods.status_resources import pod_resources
from agent.pods.translate.context import TranslateContext
from agent.pods.translate.resources import container_resources, oom_score_adj, sandbox_resources
from tests.unit.pods.test_cgroup_limits import BURSTABLE, both, pod

MIB = 1 << 20
CONTEXT = TranslateContext(node_name="n", memory_capacity_bytes=1000 * MIB, hugepage_sizes=("2MB",))


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (both(cpu="1", memory="1Mi"), QosClass.GUARANTEED),
        ({"limits": {"cpu": "1", "memory": "1Mi"}}, QosClass.GUARANTEED),
        ({"limits": {"memory": "1Mi"}}, QosClass.BURSTABLE),
        ({"requests": {"cpu": "1"}, "limits": {"cpu": "1", "memory": "1Mi"}}, QosClass.GUARANTEED),
        ({"requests": {"cpu": "500m"}, "limits": {"cpu": "1", "memory": "1Mi"}}, QosClass.BURSTABLE),
    ],
)
def test_the_pods_own_resources_alone_make_its_class(resources: dict[str, Any], expected: QosClass) -> None:
    assert qos_class(pod({}, resources=resources)) is expected


def test_a_request_that_the_pod_leaves_open_is_its_containers_sum() -> None:
    assert qos_class(pod(BURSTABLE, resources={"limits": {"cpu": "1", "memory": "1Gi"}})) is QosClass.BURSTABLE
    assert pod_requests(pod(BURSTABLE, resources={"limits": {"cpu": "1"}}))["cpu"] == 100
    assert pod_requests(pod(BURSTABLE, {}, resources=both(cpu="2")))["cpu"] == 2000


def test_a_container_without_a_limit_has_the_pods() -> None:
    given = pod({}, BURSTABLE, resources=both(cpu="1", memory="100Mi", **{"hugepages-2Mi": "4Mi"}))
    free, bound = (container_resources(given, container, CONTEXT) for container in given.spec.containers)
    assert (free.cpu_shares, free.cpu_quota, free.memory_limit_in_bytes) == (1024, 100_000, 100 * MIB)
    assert (bound.cpu_shares, bound.cpu_quota, bound.memory_limit_in_bytes) == (102, 20_000, 64 * MIB)
    assert free.hugepage_limits[0].limit == 4 * MIB
    assert sandbox_resources(given).memory_limit_in_bytes == 100 * MIB


def test_memory_that_the_pod_requests_above_its_containers_is_shared_between_them() -> None:
    given = pod(BURSTABLE, {}, resources={"requests": {"memory": "232Mi"}})
    assert [oom_score_adj(given, c, 1000 * MIB) for c in given.spec.containers] == [1000 - 132, 1000 - 100]


def test_the_downward_api_tells_the_pods_limit_where_the_container_has_none() -> None:
    given = pod({}, resources={"limits": {"memory": "100Mi"}})
    node = NodeContext("n", allocatable={"memory": "1Gi", "cpu": "4"})

    def told(name: str) -> str:
        return resource(given, ResourceFieldSelector(resource=name), node, "c0")

    assert (told("limits.memory"), told("limits.cpu")) == (str(100 * MIB), "4")


@pytest.mark.parametrize("given", [pod({}, BURSTABLE, resources=both(cpu="1", memory="1Gi"))])
def test_the_status_tells_them(given: Pod) -> None:
    resources, allocated = pod_resources(given, ())
    assert allocated == {"cpu": "1", "memory": "1Gi"}
    assert resources == ResourceRequirements(
        limits={"cpu": "1", "memory": "1Gi"}, requests={"cpu": "1", "memory": "1Gi"}
    )
