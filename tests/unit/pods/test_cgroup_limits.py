from typing import Any

import pytest

from agent.model.pod import Pod, pod_from_dict
from agent.pods.cgroup_limits import CgroupLimits, CgroupRules, cpu_weight, files, pod_cgroup_limits, qos_cgroup_limits
from agent.pods.cgroups import CgroupVersion
from agent.pods.qos import QosClass

MIB = 1 << 20


def pod(*containers: dict[str, Any], inits: tuple[dict[str, Any], ...] = (), **spec: Any) -> Pod:
    def named(prefix: str, given: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
        return [
            {"name": f"{prefix}{i}", **{k: v for k, v in one.items() if k == "restartPolicy"},
             "resources": {k: v for k, v in one.items() if k != "restartPolicy"}}
            for i, one in enumerate(given)
        ]  # fmt: skip

    return pod_from_dict(
        {
            "metadata": {"name": "p", "uid": "u"},
            "spec": {"containers": named("c", containers), "initContainers": named("i", inits), **spec},
        }
    )


def both(**amounts: str) -> dict[str, Any]:
    return {"requests": amounts, "limits": amounts}


BURSTABLE = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        (pod({}), CgroupLimits(2)),
        (pod(both(cpu="500m", memory="64Mi")), CgroupLimits(512, 50_000, 64 * MIB)),
        (pod(BURSTABLE), CgroupLimits(102, 20_000, 64 * MIB)),
        (pod({"requests": {"cpu": "100m"}}), CgroupLimits(102)),
        # One container without a limit leaves the pod without.
        (pod(BURSTABLE, {"limits": {"memory": "10Mi"}}), CgroupLimits(102, None, 74 * MIB)),
        (pod(BURSTABLE, {}), CgroupLimits(102)),
        # An init container runs alone, a sidecar beside the others.
        (pod(BURSTABLE, inits=(both(cpu="1", memory="1Mi"),)), CgroupLimits(1024, 100_000, 64 * MIB)),
        (pod(BURSTABLE, inits=({**BURSTABLE, "restartPolicy": "Always"},)), CgroupLimits(204, 40_000, 128 * MIB)),
        (pod(BURSTABLE, inits=({**BURSTABLE, "restartPolicy": "Always"}, {})), CgroupLimits(204, 40_000, 128 * MIB)),
        (pod(BURSTABLE, inits=({},)), CgroupLimits(102)),
        (pod(BURSTABLE, overhead={"cpu": "100m", "memory": "1Mi"}), CgroupLimits(204, 30_000, 65 * MIB)),
        # The pod's own word stands before the sum.
        (pod({}, resources=both(cpu="1", memory="100Mi")), CgroupLimits(1024, 100_000, 100 * MIB)),
        (pod(BURSTABLE, {}, resources={"limits": {"memory": "100Mi"}}), CgroupLimits(102, None, 100 * MIB)),
        (pod(both(cpu="5m", memory="4Mi")), CgroupLimits(5, 1000, 4 * MIB)),
    ],
)  # fmt: skip
def test_a_pods_cgroup_has_the_limits_of_the_kubelets(given: Pod, limits: CgroupLimits) -> None:
    assert pod_cgroup_limits(given, CgroupRules()) == limits


def test_the_nodes_owner_limits_processes_and_switches_quota_off() -> None:
    made = pod_cgroup_limits(pod(both(cpu="1", memory="1Mi")), CgroupRules(cpu_quota=False, pod_pids=100))
    assert (made.cpu_quota_us, made.pids) == (-1, 100)


def test_huge_pages_that_a_pod_does_not_ask_for_are_none() -> None:
    asked = pod({**both(cpu="1", memory="1Mi", **{"hugepages-2Mi": "4Mi"})})
    made = pod_cgroup_limits(asked, CgroupRules(hugepage_sizes=("2MB", "1GB")))
    assert made.hugepages == {"2MB": 4 * MIB, "1GB": 0}
    assert qos_cgroup_limits(QosClass.BURSTABLE, 0, CgroupRules(hugepage_sizes=("2MB",))).hugepages == {"2MB": 1 << 62}


@pytest.mark.parametrize(("requested", "key"), [(both(cpu="1", memory="8Mi"), "min"), (BURSTABLE, "low")])
def test_requested_memory_is_protected_where_the_owner_wants_it(requested: dict[str, Any], key: str) -> None:
    made = pod_cgroup_limits(pod(requested), CgroupRules(protect_memory=True))
    written = {file.name: file.value for file in files(made, CgroupVersion.V2)}
    amount = requested["requests"]["memory"]
    assert written[f"memory.{key}"] == str(int(amount.removesuffix("Mi")) * MIB)
    assert len([name for name in written if name in ("memory.min", "memory.low")]) == 1


def test_burstable_weighs_what_its_pods_request_and_best_effort_nothing() -> None:
    assert qos_cgroup_limits(QosClass.BURSTABLE, 1500, CgroupRules()).cpu_shares == 1536
    assert qos_cgroup_limits(QosClass.BURSTABLE, 0, CgroupRules()).cpu_shares == 2
    assert qos_cgroup_limits(QosClass.BEST_EFFORT, 1500, CgroupRules()).cpu_shares == 2


def test_limits_are_files_of_each_version() -> None:
    limits = CgroupLimits(512, 50_000, 64 * MIB, 10, {"2MB": 0})
    assert {f"{f.controller}/{f.name}": f.value for f in files(limits, CgroupVersion.V1)} == {
        "cpu/cpu.shares": "512",
        "cpu/cpu.cfs_period_us": "100000",
        "cpu/cpu.cfs_quota_us": "50000",
        "memory/memory.limit_in_bytes": str(64 * MIB),
        "pids/pids.max": "10",
        "hugetlb/hugetlb.2MB.limit_in_bytes": "0",
        "hugetlb/hugetlb.2MB.rsvd.limit_in_bytes": "0",
    }
    assert {f.name: f.value for f in files(limits, CgroupVersion.V2)} == {
        "cpu.weight": "20",
        "cpu.max": "50000 100000",
        "memory.max": str(64 * MIB),
        "pids.max": "10",
        "hugetlb.2MB.max": "0",
        "hugetlb.2MB.rsvd.max": "0",
    }
    assert [f.value for f in files(CgroupLimits(cpu_quota_us=-1), CgroupVersion.V2)] == ["max 100000"]


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262_144, 10_000)])
def test_weights_of_version_2_have_their_own_measure(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight
