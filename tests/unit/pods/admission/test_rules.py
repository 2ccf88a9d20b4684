"""Every reason for which a node does not take a pod, in the kubelet's words."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from agent.model.node import NodeFacts, NodeTaint
from agent.model.pod import Pod
from agent.pods.admission.claim import Claim, HostPort, claim
from agent.pods.admission.rules import Offers, Rejection, judge
from tests.unit.pods.pods import make_pod

NODE = NodeFacts(
    "node-1",
    labels={"disk": "ssd", "cores": "4"},
    allocatable={"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi", "pods": "3", "x.io/gpu": "1"},
)
HERE = (Claim(requests={"cpu": 1500, "memory": 1 << 20}), Claim(ports=(HostPort("0.0.0.0", "TCP", 80),)))
OFFERS = Offers()


def judged(pod: Pod, node: NodeFacts = NODE, offers: Offers = OFFERS) -> list[tuple[str, str]]:
    return [(r.reason, r.message) for r in judge(pod, claim(pod), node, HERE, offers)]


def asking(**requests: Any) -> dict[str, Any]:
    return {"containers": [{"name": "a", "image": "i", "resources": {"requests": requests}}]}


def required(*terms: dict[str, Any]) -> dict[str, Any]:
    return {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    }


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}


AFFINITY = ("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector")
PORTS = ("NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports")

CASES: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "it fits exactly": (asking(cpu="500m", memory="1023Mi"), []),
    "too little cpu": (
        asking(cpu="501m"),
        [("OutOfcpu", "Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000")],
    ),
    "too little memory": (
        asking(memory="1Gi"),
        [
            (
                "OutOfmemory",
                "Node didn't have enough resource: memory, requested: 1073741824, used: 1048576, capacity: 1073741824",
            )
        ],
    ),
    "too little disk": (
        asking(**{"ephemeral-storage": "2Gi"}),
        [
            (
                "OutOfephemeral-storage",
                "Node didn't have enough resource: ephemeral-storage, "
                "requested: 2147483648, used: 0, capacity: 1073741824",
            )
        ],
    ),
    "too few of what a device plugin counts": (
        asking(**{"x.io/gpu": "2"}),
        [("OutOfx.io/gpu", "Node didn't have enough resource: x.io/gpu, requested: 2, used: 0, capacity: 1")],
    ),
    "what nobody on the node counts is the cluster's": (asking(**{"y.io/licence": "2"}), []),
    "huge pages are the node's": (
        asking(**{"hugepages-2Mi": "2Mi"}),
        [
            (
                "OutOfhugepages-2Mi",
                "Node didn't have enough resource: hugepages-2Mi, requested: 2097152, used: 0, capacity: 0",
            )
        ],
    ),
    "cpu is named before memory": (
        asking(memory="2Gi", cpu="2"),
        [
            ("OutOfcpu", "Node didn't have enough resource: cpu, requested: 2000, used: 1500, capacity: 2000"),
            (
                "OutOfmemory",
                "Node didn't have enough resource: memory, requested: 2147483648, used: 1048576, capacity: 1073741824",
            ),
        ],
    ),
    "a selector that matches": ({"nodeSelector": {"disk": "ssd"}}, []),
    "a selector that does not": ({"nodeSelector": {"disk": "hdd"}}, [AFFINITY]),
    "a selector of a label that is not there": ({"nodeSelector": {"zone": "a"}}, [AFFINITY]),
    "In": (required(expression("disk", "In", "hdd", "ssd")), []),
    "In, without the label": (required(expression("zone", "In", "a")), [AFFINITY]),
    "NotIn": (required(expression("disk", "NotIn", "ssd")), [AFFINITY]),
    "NotIn, without the label": (required(expression("zone", "NotIn", "a")), []),
    "Exists": (required(expression("zone", "Exists")), [AFFINITY]),
    "DoesNotExist": (required(expression("zone", "DoesNotExist")), []),
    "Gt": (required(expression("cores", "Gt", "4")), [AFFINITY]),
    "Lt": (required(expression("cores", "Lt", "5")), []),
    "Gt of no number": (required(expression("disk", "Gt", "1")), [AFFINITY]),
    "an operator that nobody knows": (required(expression("disk", "Like", "ssd")), [AFFINITY]),
    "an empty term": (required({}), [AFFINITY]),
    "any term is enough": (required({}, expression("disk", "Exists")), []),
    "all of a term must hold": (
        required({"matchExpressions": [{"key": "disk", "operator": "Exists"}, {"key": "zone", "operator": "Exists"}]}),
        [AFFINITY],
    ),
    "by the node's name": (
        required({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}),
        [],
    ),
    "by another node's name": (
        required({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-2"]}]}),
        [AFFINITY],
    ),
    "preferences are the scheduler's": (
        {
            "affinity": {
                "nodeAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {"weight": 1, "preference": expression("zone", "Exists")}
                    ]
                }
            }
        },
        [],
    ),
    "of another node": (
        {"nodeName": "node-2"},
        [("NodeName", "Predicate NodeName failed: node(s) didn't match the requested node name")],
    ),
    "a port that is taken": (
        {"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 1, "hostPort": 80}]}]},
        [PORTS],
    ),
    "a port that is free": (
        {"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80, "hostPort": 81}]}]},
        [],
    ),
    "the os field": (
        {"os": {"name": "windows"}},
        [("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")],
    ),
    "a strict groups policy": (
        {"securityContext": {"supplementalGroupsPolicy": "Strict"}},
        [
            (
                "SupplementalGroupsPolicyNotSupported",
                "SupplementalGroupsPolicy=Strict is not supported in this node",
            )
        ],
    ),
    "a parameter of the kernel": (
        {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}},
        [("SysctlForbidden", 'forbidden sysctl: "kernel.msgmax" not allowlisted')],
    ),
}


@pytest.mark.parametrize(("spec", "wanted"), CASES.values(), ids=CASES)
def test_what_speaks_against_a_pod(spec: dict[str, Any], wanted: list[tuple[str, str]]) -> None:
    assert judged(make_pod(**spec)) == wanted


def test_only_so_many_pods_fit_whatever_they_ask() -> None:
    node = replace(NODE, allocatable={"pods": "2"})
    assert judged(make_pod(), node) == [
        ("OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2")
    ]


def test_an_os_label_of_another_system_is_a_reason() -> None:
    reason, message = (
        "PodOSSelectorNodeLabelDoesNotMatch",
        "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
    )
    assert judged(make_pod({"labels": {"kubernetes.io/os": "windows"}})) == [(reason, message)]
    assert judged(make_pod({"labels": {"kubernetes.io/os": "linux"}})) == []


def test_a_strict_groups_policy_is_taken_where_the_runtime_has_it() -> None:
    pod = make_pod(securityContext={"supplementalGroupsPolicy": "Strict"})
    assert judged(pod, offers=Offers(supplemental_groups_policy=True)) == []


TOLERATIONS = {
    "none": ([], False),
    "its key": ([{"key": "k", "operator": "Exists"}], True),
    "everything": ([{"operator": "Exists"}], True),
    "its value": ([{"key": "k", "value": "v", "effect": "NoExecute"}], True),
    "another value": ([{"key": "k", "value": "w"}], False),
    "another effect": ([{"key": "k", "operator": "Exists", "effect": "NoSchedule"}], False),
    "another key": ([{"key": "l", "operator": "Exists"}], False),
    "an operator that is off": ([{"key": "k", "operator": "Gt", "value": "1"}], False),
}


@pytest.mark.parametrize(("tolerations", "taken"), TOLERATIONS.values(), ids=TOLERATIONS)
def test_a_taint_that_expels_must_be_tolerated(tolerations: list[dict[str, Any]], taken: bool) -> None:
    node = replace(NODE, taints=(NodeTaint(key="k", value="v", effect="NoExecute"),))
    against = [("TaintToleration", "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate")]
    assert judged(make_pod(tolerations=tolerations), node) == ([] if taken else against)


def test_a_taint_that_only_schedules_is_the_schedulers() -> None:
    node = replace(NODE, taints=(NodeTaint(key="k", effect="NoSchedule"),))
    assert judged(make_pod(), node) == []


def test_a_static_pod_tolerates_every_taint() -> None:
    node = replace(NODE, taints=(NodeTaint(key="k", effect="NoExecute"),))
    assert judged(make_pod({"annotations": {"kubernetes.io/config.source": "file"}}), node) == []


APP_ARMOR = {
    "nobody asks": ({}, {}, True),
    "the pod asks": ({}, {"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}, False),
    "unconfined": ({}, {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}, True),
    "an annotation asks": (
        {"annotations": {"container.apparmor.security.beta.kubernetes.io/main": "localhost/x"}},
        {},
        False,
    ),
}


@pytest.mark.parametrize(("meta", "spec", "taken"), APP_ARMOR.values(), ids=APP_ARMOR)
def test_profiles_need_a_kernel_that_enforces_them(meta: dict[str, Any], spec: dict[str, Any], taken: bool) -> None:
    against = [("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")]
    assert judged(make_pod(meta, **spec), offers=Offers(app_armor=False)) == ([] if taken else against)
    assert judged(make_pod(meta, **spec)) == []


def test_what_is_missing_is_counted_for_who_makes_room() -> None:
    pod = make_pod(**asking(cpu="700m"))
    (found,) = judge(pod, claim(pod), NODE, HERE, OFFERS)
    assert isinstance(found, Rejection)
    assert (found.resource, found.missing) == ("cpu", 200)
