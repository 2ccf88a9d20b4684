"""The words of an eviction."""

from __future__ import annotations

from agent.node.eviction.messages import eviction_message
from agent.node.eviction.signals import Observation, Signal
from agent.node.eviction.thresholds import Amount, Threshold
from tests.unit.node.eviction.uses import MIB, figures, pod
from tests.unit.pods.pods import make_pod

MEMORY = Threshold(Signal.MEMORY, Amount("100Mi"))
SEEN = {
    Signal.MEMORY: Observation(64 * MIB, 1024 * MIB),
    Signal.NODE_FS: Observation(2 * MIB + 1, 64 * MIB),
    Signal.PIDS: Observation(2000, 32768),
}


def test_memory_with_the_container_that_took_it() -> None:
    message, annotations = eviction_message(pod("eater"), figures("eater", memory=300 * MIB), (MEMORY,), SEEN)
    assert message == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 64Mi. "
        "Container main was using 300Mi, request is 0, has larger consumption of memory. "
    )
    assert annotations == {
        "offending_containers": "main",
        "offending_containers_usage": "300Mi",
        "starved_resource": "memory",
    }


def test_a_container_that_keeps_to_its_request_is_not_named() -> None:
    message, annotations = eviction_message(
        pod("kept", memory="1Gi"), figures("kept", memory=300 * MIB), (MEMORY,), SEEN
    )
    assert message == "The node was low on resource: memory. Threshold quantity: 100Mi, available: 64Mi. "
    assert annotations["offending_containers"] == annotations["offending_containers_usage"] == ""


def test_disk_counts_log_and_writable_layer_and_a_share_is_told_as_an_amount() -> None:
    threshold = Threshold(Signal.NODE_FS, Amount("10%"))
    used = figures("writer", written=3 * MIB, log=MIB, volume=100 * MIB)
    message, _ = eviction_message(pod("writer", ephemeral_storage="2Mi"), used, (threshold,), SEEN)
    assert message == (
        "The node was low on resource: ephemeral-storage. Threshold quantity: 6710886, available: 2097153. "
        "Container main was using 4Mi, request is 2Mi, has larger consumption of ephemeral-storage. "
    )


def test_process_ids_have_no_offender() -> None:
    threshold = Threshold(Signal.PIDS, Amount("10%"))
    message, annotations = eviction_message(pod("bomb"), figures("bomb", processes=900), (threshold,), SEEN)
    assert message == "The node was low on resource: pids. Threshold quantity: 3276, available: 2k. "
    assert annotations["starved_resource"] == "pids"


def test_a_pod_with_resources_of_its_own_is_named_before_its_containers() -> None:
    whole = make_pod({"name": "whole"}, resources={"requests": {"memory": "64Mi"}})
    message, annotations = eviction_message(whole, figures("whole", memory=65 * MIB), (MEMORY,), SEEN)
    assert "available: 64Mi. Pod whole was using 65Mi, request is 64Mi, has larger consumption of memory. " in message
    assert (annotations["offending_pod"], annotations["offending_pod_usage"]) == ("whole", "65Mi")


def test_what_nobody_could_read_is_not_told() -> None:
    assert eviction_message(pod("p"), None, (MEMORY,), {}) == ("The node was low on resource: memory. ", {})
