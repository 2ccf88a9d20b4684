from __future__ import annotations

import json
import re
from typing import Any

import pytest
from msgspec.structs import replace

from agent.config import Settings, Taint
from agent.node import status
from agent.node.ports import NodeImage, RuntimeCondition, RuntimeHandler, RuntimeHealth
from agent.node.pressure import Pressure
from tests.unit.node.machine import FACTS, HEALTH, SETTINGS

NOW = 1_700_000_000.0
LATER = NOW + 60
SEEN = status.Observed(facts=FACTS, health=HEALTH, pressure=Pressure())


def _condition(observed: status.Observed, kind: str) -> dict[str, Any]:
    return next(one for one in status.conditions(observed, [], NOW) if one["type"] == kind)


def test_the_capacity_is_the_machines() -> None:
    assert status.capacity(FACTS, SETTINGS) == {
        "cpu": "4",
        "memory": "8388608Ki",
        "ephemeral-storage": "104857600Ki",
        "pods": "110",
        "hugepages-2Mi": "1073741824",
        "hugepages-1Gi": "0",
    }


def test_what_must_stay_free_and_huge_pages_cannot_be_allocated() -> None:
    found = status.allocatable(FACTS, SETTINGS)
    assert found["memory"] == f"{8388608 - 100 * 1024 - 2**20}Ki"
    assert found["ephemeral-storage"] == str(90 * 2**30)
    assert (found["cpu"], found["pods"], found["hugepages-2Mi"]) == ("4", "110", "1073741824")


def test_devices_of_plugins_are_counted_and_only_healthy_ones_can_be_had() -> None:
    built = status.status(
        replace(SEEN, devices={"example.com/widget": (3, 2), "example.com/gone": (0, 0)}), SETTINGS, [], NOW
    )
    assert (built["capacity"]["example.com/widget"], built["allocatable"]["example.com/widget"]) == ("3", "2")
    assert (built["capacity"]["example.com/gone"], built["allocatable"]["example.com/gone"]) == ("0", "0")
    known = json.loads(json.dumps(built))
    assert not status.disturbed(built, known)
    known["allocatable"]["example.com/widget"] = "3"
    assert status.disturbed(built, known)


def test_the_node_info_describes_system_and_runtime() -> None:
    info = status.status(SEEN, SETTINGS, [], NOW)["nodeInfo"]
    assert info["containerRuntimeVersion"] == "containerd://2.1.4"
    assert re.fullmatch(r"v1\.\d+\.\d+\+edgelet\.[0-9A-Za-z.-]+", info["kubeletVersion"])
    assert (info["operatingSystem"], info["architecture"], info["bootID"]) == ("linux", "arm64", "boot-1")
    assert info["kubeProxyVersion"] == ""


def test_a_runtime_never_heard_of_is_called_unknown() -> None:
    info = status.status(replace(SEEN, health=RuntimeHealth(down="no socket")), SETTINGS, [], NOW)["nodeInfo"]
    assert info["containerRuntimeVersion"] == "unknown://unknown"


def test_the_nodes_address_is_the_default_routes_or_the_one_given() -> None:
    def addresses(node_ip: str) -> list[tuple[str, str]]:
        built = status.status(SEEN, replace(SETTINGS, node_ip=node_ip), [], NOW)
        return [(one["type"], one["address"]) for one in built["addresses"]]

    assert addresses("") == [("InternalIP", "10.1.2.3"), ("Hostname", "edge-1")]
    assert addresses("10.0.0.9,fd00::9") == [
        ("InternalIP", "10.0.0.9"),
        ("InternalIP", "fd00::9"),
        ("Hostname", "edge-1"),
    ]


def test_labels_are_the_standard_ones_and_the_users() -> None:
    settings = replace(SETTINGS, node_labels={"site": "harbour", "kubernetes.io/arch": "arm"})
    assert status.labels(FACTS, settings) == {
        "kubernetes.io/hostname": "edge-1",
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "arm",
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": "arm64",
        "site": "harbour",
    }


def test_a_node_of_another_provider_is_labelled_as_virtual_unless_its_owner_says_otherwise() -> None:
    assert "type" not in status.labels(FACTS, SETTINGS)
    assert status.labels(FACTS, replace(SETTINGS, provider="mock"))["type"] == "virtual-kubelet"
    own = replace(SETTINGS, provider="mock", node_labels={"type": "robot"})
    assert status.labels(FACTS, own)["type"] == "robot"


def test_taints_are_those_asked_for() -> None:
    def taints(settings: Settings) -> object:
        return status.node(SEEN, settings, [], NOW)["spec"].get("taints")

    registered = replace(SETTINGS, register_with_taints=(Taint("a", "", "NoExecute"),))
    both = replace(registered, provider_taint=Taint("p", "containerd", "NoSchedule"))
    assert taints(SETTINGS) is None
    assert taints(both) == [
        {"key": "a", "effect": "NoExecute"},
        {"key": "p", "value": "containerd", "effect": "NoSchedule"},
    ]
    assert taints(replace(both, disable_taint=True)) == [{"key": "a", "effect": "NoExecute"}]


def test_a_healthy_node_has_the_four_conditions_with_ready_last() -> None:
    found = [(one["type"], one["status"], one["reason"]) for one in status.conditions(SEEN, [], NOW)]
    assert found == [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ("Ready", "True", "KubeletReady"),
    ]


def test_pressure_turns_its_condition() -> None:
    pressed = replace(SEEN, pressure=Pressure(memory=True, disk=True, pids=True))
    found = [(one["type"], one["status"], one["reason"]) for one in status.conditions(pressed, [], NOW)][:3]
    assert found == [
        ("MemoryPressure", "True", "KubeletHasInsufficientMemory"),
        ("DiskPressure", "True", "KubeletHasDiskPressure"),
        ("PIDPressure", "True", "KubeletHasInsufficientPID"),
    ]


@pytest.mark.parametrize(
    ("health", "message"),
    [
        (replace(HEALTH, down="no such socket"), "container runtime is down: no such socket"),
        (
            replace(HEALTH, network=RuntimeCondition(False, "NetworkPluginNotReady", "cni plugin not initialized")),
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady"
            " message:cni plugin not initialized",
        ),
        (
            replace(HEALTH, runtime=RuntimeCondition(False, "A", "b"), network=RuntimeCondition(False, "C", "d")),
            "[container runtime not ready: RuntimeReady=false reason:A message:b,"
            " container runtime network not ready: NetworkReady=false reason:C message:d]",
        ),
    ],
)
def test_a_runtime_or_network_that_is_not_ready_makes_the_node_not_ready(health: RuntimeHealth, message: str) -> None:
    ready = _condition(replace(SEEN, health=health), "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "KubeletNotReady", message)


def test_a_node_that_is_left_stays_ready_and_says_why_nobody_answers() -> None:
    ready = _condition(replace(SEEN, leaving="stopped by hand"), "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("True", "AgentStopped", "stopped by hand")


def test_a_transition_time_moves_only_with_the_status() -> None:
    first = status.conditions(SEEN, [], NOW)
    same = status.conditions(SEEN, first, LATER)
    assert {one["lastTransitionTime"] for one in same} == {"2023-11-14T22:13:20Z"}
    assert {one["lastHeartbeatTime"] for one in same} == {"2023-11-14T22:14:20Z"}
    down = status.conditions(replace(SEEN, health=replace(HEALTH, down="x")), same, LATER)
    assert [one["lastTransitionTime"] for one in down] == ["2023-11-14T22:13:20Z"] * 3 + ["2023-11-14T22:14:20Z"]
    assert [reason for reason, _ in status.turned(same, down)] == ["NodeNotReady"]
    assert status.turned(first, same) == ()


def test_heartbeats_alone_are_no_news() -> None:
    first = status.status(SEEN, SETTINGS, [], NOW)
    assert status.changed(first, None)
    assert not status.changed(status.status(SEEN, SETTINGS, first["conditions"], LATER), first)
    pulled = replace(SEEN, images=(NodeImage(("a:1",), 5),))
    assert status.changed(status.status(pulled, SETTINGS, first["conditions"], LATER), first)


def test_what_others_changed_on_the_node_is_noticed_and_their_own_parts_are_not() -> None:
    wanted = status.status(SEEN, SETTINGS, [], NOW)
    known = json.loads(json.dumps(wanted))
    # As the API server writes it back, with parts that are others'.
    known["capacity"] |= {"hugepages-2Mi": "1Gi", "example.com/gpu": "2"}
    known["conditions"].append({"type": "NetworkUnavailable", "status": "False"})
    assert not status.disturbed(wanted, known)
    lost = json.loads(json.dumps(known))
    lost["conditions"][3] |= {"status": "Unknown", "reason": "NodeStatusUnknown"}
    assert status.disturbed(wanted, lost)
    edited = json.loads(json.dumps(known))
    edited["allocatable"]["pods"] = "5"
    assert status.disturbed(wanted, edited)
    assert status.disturbed(wanted, {})


def test_the_patch_drops_page_sizes_that_the_kernel_no_longer_has_and_nothing_else() -> None:
    wanted = status.status(SEEN, SETTINGS, [], NOW)
    known = {"capacity": {"hugepages-16Gi": "0", "example.com/gpu": "2"}, "allocatable": {"hugepages-16Gi": "0"}}
    patch = status.status_patch(wanted, known)["status"]
    assert patch["capacity"] == wanted["capacity"] | {"hugepages-16Gi": None}
    assert patch["allocatable"] == wanted["allocatable"] | {"hugepages-16Gi": None}
    assert patch["addresses"][-1] == {"$patch": "replace"}


def test_the_patch_of_a_status_that_is_only_due_has_the_heartbeats_alone() -> None:
    known = status.status(SEEN, SETTINGS, [], NOW)
    wanted = status.status(SEEN, SETTINGS, known["conditions"], LATER)
    patch = status.status_patch(wanted, json.loads(json.dumps(known)))["status"]
    beats = [{"type": one["type"], "lastHeartbeatTime": one["lastHeartbeatTime"]} for one in wanted["conditions"]]
    assert patch == {"conditions": beats}


def test_the_patch_has_what_is_new_and_a_status_after_it_needs_none() -> None:
    known = status.status(SEEN, SETTINGS, [], NOW)
    known["capacity"] |= {"hugepages-16Gi": "0", "example.com/gpu": "2"}
    known["conditions"].append({"type": "Foreign", "status": "True"})
    pressed = replace(SEEN, facts=replace(FACTS, cpus=99), pressure=Pressure(memory=True))
    wanted = status.status(pressed, SETTINGS, known["conditions"], LATER)
    patch = status.status_patch(wanted, known)["status"]
    assert set(patch) == {"capacity", "allocatable", "conditions"}
    assert patch["capacity"] == {"cpu": "99", "hugepages-16Gi": None}
    assert patch["conditions"][0] == wanted["conditions"][0] | {"type": "MemoryPressure"}
    assert set(patch["conditions"][1]) == {"type", "lastHeartbeatTime"}

    after = status.patched(known, wanted)
    assert after["capacity"]["example.com/gpu"] == "2"
    assert "hugepages-16Gi" not in after["capacity"]
    assert "Foreign" in [one["type"] for one in after["conditions"]]
    assert not status.disturbed(wanted, after)
    beats = status.status_patch(wanted, after)["status"]
    assert beats == {"conditions": [{"type": one["type"]} for one in wanted["conditions"]]}


def test_the_fifty_largest_images_are_named_five_times_at_most() -> None:
    images = [NodeImage((f"i{size}@sha256:x", *(f"i{size}:{tag}" for tag in range(6))), size) for size in range(60)]
    shown = status.status(replace(SEEN, images=(*images, NodeImage((), 999))), SETTINGS, [], NOW)["images"]
    assert [one["sizeBytes"] for one in shown] == list(range(59, 9, -1))
    assert shown[0]["names"] == ["i59@sha256:x", "i59:0", "i59:1", "i59:2", "i59:3"]


def test_the_runtimes_abilities_and_the_apis_port_are_told() -> None:
    able = replace(
        HEALTH,
        handlers=(RuntimeHandler("", True), RuntimeHandler("runc", True, True)),
        supplemental_groups_policy=True,
        declared_features=("Sings",),
    )
    built = status.status(replace(SEEN, health=able), SETTINGS, [], NOW)
    assert built["runtimeHandlers"][1] == {
        "name": "runc",
        "features": {"recursiveReadOnlyMounts": True, "userNamespaces": True},
    }
    assert built["features"] == {"supplementalGroupsPolicy": True}
    assert built["declaredFeatures"] == ["Sings"]
    assert "declaredFeatures" not in status.status(SEEN, SETTINGS, [], NOW)
    assert built["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    assert "daemonEndpoints" not in status.status(SEEN, replace(SETTINGS, port=0), [], NOW)


def test_a_node_that_goes_down_is_not_ready_and_says_so() -> None:
    ready = _condition(replace(SEEN, going_down="node is shutting down"), "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "KubeletNotReady", "node is shutting down")
    down = replace(HEALTH, down="no answer")
    ready = _condition(replace(SEEN, going_down="node is shutting down", health=down), "Ready")
    assert ready["message"] == "[container runtime is down: no answer, node is shutting down]"
