"""Annotations of the Node: what they set, and what a wrong one leaves as it was."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from agent.config import Settings
from agent.policies.node import ANNOTATIONS, NODE_POLICIES, NodePolicies, node_policies

SETTINGS = Settings("edge-1")


def test_each_annotation_stands_over_the_setting_of_its_name_and_replaces_all_of_it() -> None:
    written = {
        "edgelet.io/eviction-hard": "memory.available<200Mi,nodefs.available<5%",
        "edgelet.io/eviction-soft": "memory.available<20%",
        "edgelet.io/eviction-soft-grace-period": "memory.available=1m30s",
        "edgelet.io/eviction-minimum-reclaim": "nodefs.available=500Mi",
        "edgelet.io/image-gc-high-threshold": "70",
        "edgelet.io/image-gc-low-threshold": "60",
        "edgelet.io/minimum-image-ttl": "0s",
        "edgelet.io/prefetch": "busybox:1,\n docker.io/library/nginx@sha256:00  busybox:1\n",
        "example.com/other": "?",
    }
    assert written.keys() - {"example.com/other"} == ANNOTATIONS
    found, faults = node_policies(written, SETTINGS)
    assert faults == ()
    assert found.prefetch == ("busybox:1", "docker.io/library/nginx@sha256:00")
    assert found.over(SETTINGS) == replace(
        SETTINGS,
        eviction_hard={"memory.available": "200Mi", "nodefs.available": "5%"},
        eviction_soft={"memory.available": "20%"},
        eviction_soft_grace_period={"memory.available": 90.0},
        eviction_minimum_reclaim={"nodefs.available": "500Mi"},
        image_gc_high_threshold=70,
        image_gc_low_threshold=60,
        minimum_image_ttl_duration=0.0,
    )


def test_no_annotation_leaves_the_settings() -> None:
    found, faults = node_policies({}, SETTINGS)
    assert (found, faults) == (NodePolicies(), ())
    assert found.over(SETTINGS) == SETTINGS


def test_an_empty_threshold_is_none_at_all_as_the_flags() -> None:
    found, _ = node_policies({"edgelet.io/eviction-hard": ""}, SETTINGS)
    assert found.over(SETTINGS).eviction_hard == {}


@pytest.mark.parametrize(
    ("annotation", "value", "why"),
    [
        ("edgelet.io/eviction-hard", "memory.available=1", "'memory.available=1' is not written SIGNAL<AMOUNT"),
        ("edgelet.io/eviction-soft-grace-period", "memory.available=soon", "'soon' is no duration: write 90s or 1m30s"),
        ("edgelet.io/eviction-minimum-reclaim", "disk=1", "'disk' is no eviction signal: memory.available"),
        ("edgelet.io/image-gc-high-threshold", "101", "101 is not between 0 and 100"),
        ("edgelet.io/minimum-image-ttl", "-1m", "'-1m' is no duration"),
        ("edgelet.io/prefetch", "ok:1, §", "'§' is no image"),
    ],
)
def test_a_wrong_value_is_named_and_the_setting_and_the_other_annotations_hold(
    annotation: str, value: str, why: str
) -> None:
    found, (fault,) = node_policies({annotation: value, "edgelet.io/image-gc-low-threshold": "10"}, SETTINGS)
    assert (fault.annotation, fault.value) == (annotation, value)
    assert fault.why.startswith(why)
    assert found.over(SETTINGS) == replace(SETTINGS, image_gc_low_threshold=10)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_threshold_of_all_that_the_machine_has_would_end_every_pod_and_is_a_fault(kind: str) -> None:
    sizes = {"memory.available": 8 * 2**30}
    graces = replace(SETTINGS, eviction_soft_grace_period={"memory.available": 5.0})
    written = {f"edgelet.io/eviction-{kind}": "pid.available<5%,memory.available<8Gi"}
    found, (fault,) = node_policies(written, graces, sizes)
    assert found == NodePolicies()
    assert fault.why == "memory.available<8Gi: the machine has no more than 8192Mi"
    assert node_policies({f"edgelet.io/eviction-{kind}": "memory.available<7Gi"}, graces, sizes)[1] == ()


def test_what_does_not_go_together_with_another_setting_is_a_fault() -> None:
    soft = {"edgelet.io/eviction-soft": "memory.available<1Gi", "edgelet.io/image-gc-high-threshold": "90"}
    found, (fault,) = node_policies(soft, SETTINGS)
    assert fault.annotation == "edgelet.io/eviction-soft"
    assert "memory.available also needs --eviction-soft-grace-period" in fault.why
    assert found.over(SETTINGS) == replace(SETTINGS, image_gc_high_threshold=90)

    low = {"edgelet.io/image-gc-low-threshold": "50", "edgelet.io/image-gc-high-threshold": "50"}
    found, faults = node_policies(low, SETTINGS)
    assert {fault.annotation for fault in faults} == low.keys()
    assert found == NodePolicies()


def test_a_grace_period_of_the_settings_serves_a_soft_threshold_of_an_annotation() -> None:
    graces = replace(SETTINGS, eviction_soft_grace_period={"memory.available": 5.0})
    found, faults = node_policies({"edgelet.io/eviction-soft": "memory.available<1Gi"}, graces)
    assert faults == ()
    assert found.over(graces).eviction_soft == {"memory.available": "1Gi"}


def test_each_policy_has_a_field() -> None:
    assert {policy.field for policy in NODE_POLICIES} == set(NodePolicies.__struct_fields__)
