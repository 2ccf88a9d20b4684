from typing import Any

import pytest
from msgspec.structs import replace

from agent.pods.translate.context import TranslateContext
from agent.pods.translate.resources import (
    container_resources,
    cpu_quota_us,
    cpu_shares,
    oom_score_adj,
    sandbox_overhead,
    sandbox_resources,
)
from tests.unit.pods.pods import container_pod, make_pod

GIB = 2**30
CONTEXT = TranslateContext(node_name="edge-1", memory_capacity_bytes=10 * GIB)


@pytest.mark.parametrize(
    ("milli", "shares", "quota"),
    [
        (0, 2, 0),
        (1, 2, 1000),
        (9, 9, 1000),
        (10, 10, 1000),
        (11, 11, 1100),
        (100, 102, 10_000),
        (1500, 1536, 150_000),
        (300_000, 262_144, 30_000_000),
    ],
)
def test_shares_and_quota_have_the_kernels_floor_and_ceiling(milli: int, shares: int, quota: int) -> None:
    assert (cpu_shares(milli), cpu_quota_us(milli)) == (shares, quota)


def test_a_container_gets_its_requests_as_weight_and_its_limits_as_bounds() -> None:
    pod = container_pod(
        resources={"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "1.5", "memory": "2Gi"}}
    )
    found = container_resources(pod, pod.spec.containers[0], CONTEXT)
    assert (found.cpu_shares, found.cpu_quota, found.cpu_period) == (256, 150_000, 100_000)
    assert found.memory_limit_in_bytes == 2 * GIB
    assert found.oom_score_adj == 900
    assert (found.memory_swap_limit_in_bytes, dict(found.unified), list(found.hugepage_limits)) == (0, {}, [])


def test_without_limits_nothing_is_bounded_and_without_requests_the_limit_is_the_weight() -> None:
    bare = container_pod()
    found = container_resources(bare, bare.spec.containers[0], CONTEXT)
    assert (found.cpu_shares, found.cpu_quota, found.memory_limit_in_bytes, found.oom_score_adj) == (2, 0, 0, 1000)
    limited = container_pod(resources={"limits": {"cpu": 2}})
    assert container_resources(limited, limited.spec.containers[0], CONTEXT).cpu_shares == 2048


def test_every_huge_page_size_of_the_kernel_is_limited_to_what_was_asked() -> None:
    pod = container_pod(resources={"limits": {"hugepages-2Mi": "64Mi", "hugepages-4Mi": "8Mi"}})
    context = replace(CONTEXT, hugepage_sizes=("2MB", "1GB"))
    limits = container_resources(pod, pod.spec.containers[0], context).hugepage_limits
    assert [(limit.page_size, limit.limit) for limit in limits] == [("2MB", 64 * 2**20), ("1GB", 0)]


def test_the_whole_container_is_ended_at_once_where_the_node_says_so() -> None:
    pod = container_pod()
    context = replace(CONTEXT, oom_kill_whole_container=True)
    assert dict(container_resources(pod, pod.spec.containers[0], context).unified) == {"memory.oom.group": "1"}


def scored(index: int = 0, *, init: bool = False, **spec: Any) -> int:
    pod = make_pod(spec.pop("meta", None), **spec)
    container = (pod.spec.initContainers if init else pod.spec.containers)[index]
    return oom_score_adj(pod, container, 10 * GIB)


def main(request: str) -> dict[str, Any]:
    return {"name": f"m{request}", "resources": {"requests": {"memory": request}}}


@pytest.mark.parametrize(
    ("request_", "score"), [("0.1", 999), ("1Mi", 999), ("1Gi", 900), ("5Gi", 500), ("9.999Gi", 3), ("20Gi", 3)]
)
def test_a_burstable_container_is_ended_the_later_the_more_it_asked_for(request_: str, score: int) -> None:
    assert scored(containers=[main(request_)]) == score


def test_guaranteed_and_node_critical_pods_go_last_and_best_effort_first() -> None:
    assert scored(containers=[{"name": "g", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]) == -997
    assert scored(containers=[{"name": "b"}]) == 1000
    critical: dict[str, Any] = {"priorityClassName": "system-node-critical"}
    assert scored(**critical, priority=2_000_001_000) == -997
    assert scored(**critical, meta={"annotations": {"kubernetes.io/config.source": "file"}}) == -997
    assert scored(**critical, priority=5) == 1000
    assert scored(priorityClassName="system-cluster-critical", priority=2_000_000_000) == 1000


def test_a_sidecar_does_not_go_before_the_containers_it_serves() -> None:
    sidecar = {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"memory": "1Mi"}}}
    mains = [main("2Gi"), main("4Gi")]
    assert scored(init=True, initContainers=[sidecar], containers=mains) == 800
    assert scored(init=True, initContainers=[{**sidecar, "restartPolicy": None}], containers=mains) == 999
    assert scored(init=True, initContainers=[{**sidecar, **main("3Gi")}], containers=mains) == 700


def test_the_sandbox_holds_the_most_that_runs_at_one_time() -> None:
    def sized(name: str, cpu: str, policy: str | None = None) -> dict[str, Any]:
        return {"name": name, "restartPolicy": policy, "resources": {"limits": {"cpu": cpu, "memory": "1Gi"}}}

    pod = make_pod(
        initContainers=[sized("early", "1"), sized("side", "500m", "Always"), sized("late", "3")],
        containers=[sized("a", "1"), sized("b", "1")],
    )
    found = sandbox_resources(pod)
    # late + side: 3.5 cores; a + b + side: 3 GiB
    assert (found.cpu_shares, found.cpu_quota, found.memory_limit_in_bytes) == (3584, 350_000, 3 * GIB)
    assert found.oom_score_adj == 0


def test_overhead_is_said_apart_and_only_where_there_is_some() -> None:
    assert sandbox_overhead(make_pod()).cpu_period == 0
    found = sandbox_overhead(make_pod(overhead={"cpu": "250m", "memory": "120Mi"}))
    assert (found.cpu_shares, found.cpu_quota, found.memory_limit_in_bytes) == (256, 25_000, 120 * 2**20)
