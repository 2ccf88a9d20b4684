"""A machine that runs short ends the pod that took too much, says so, and keeps the others as they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from hack.agent import Agent
from hack.control_plane import ControlPlane
from hack.runtime import Containerd
from tests.integration.agent.edge import SLEEP, Edge, Object, condition, container, pod, restarts
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

MIB = 2**20
PODS_MIB = 500
"""What all pods of the node may have together: what else goes on on the machine does not matter."""
EATEN_MIB = 430
WITHIN_S = 15
GUARANTEED = {"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"cpu": "50m", "memory": "16Mi"}}
TRANSITION_S = 12
CACHE = [{"name": "cache", "mountPath": "/cache"}]


def writes(path: str, mib: int) -> str:
    return f"dd if=/dev/zero of={path} bs=1M count={mib}; {SLEEP}"


def has_taint(edge: Edge, key: str) -> bool:
    return any(taint["key"] == key for taint in edge.agent.node_object()["spec"].get("taints", []))


def evicted(edge: Edge, name: str, timeout: float) -> Object:
    found = edge.wait_phase(name, "Failed", timeout)
    assert found["status"]["reason"] == "Evicted"
    return found


def test_who_eats_the_memory_goes_and_a_guaranteed_pod_notices_nothing(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str
) -> None:
    reserved = psutil.virtual_memory().total // MIB - PODS_MIB
    node = agent(
        flags=[
            f"--system-reserved=memory={reserved}Mi",
            f"--eviction-hard=memory.available<{PODS_MIB // 5}Mi",
            f"--eviction-pressure-transition-period={TRANSITION_S}s",
        ]
    )
    edge = Edge(node, one_containerd, control_plane, namespace)
    edge.run(pod("kept", container(resources=GUARANTEED)))
    edge.wait_ready("kept")
    before = edge.pod("kept")["status"]["containerStatuses"][0]["containerID"]

    # It holds what it has read, and nobody takes it.
    edge.run(pod("eater", container(f"dd if=/dev/zero bs={EATEN_MIB}M count=1 | sleep 3600")))
    wait_until(lambda: edge.pod("eater")["status"].get("phase") in ("Running", "Failed"), what="the eater runs")
    began = time.monotonic()
    eater = evicted(edge, "eater", WITHIN_S)
    print(f"evicted within {time.monotonic() - began:.1f} s of its start")
    message = eater["status"]["message"]
    low = f"The node was low on resource: memory. Threshold quantity: {PODS_MIB // 5}Mi, available: "
    assert message.startswith(low)
    assert ". Container main was using " in message
    assert message.endswith(", request is 0, has larger consumption of memory. ")
    target = condition(eater, "DisruptionTarget")
    assert (target["status"], target["reason"]) == ("True", "TerminationByKubelet")

    wait_until(lambda: edge.agent.condition("MemoryPressure")["status"] == "True", 10)
    wait_until(lambda: has_taint(edge, "node.kubernetes.io/memory-pressure"), 20)
    edge.run(pod("late"), pod("asked", container(resources={"requests": {"memory": "1Mi"}})))
    late = evicted(edge, "late", 10)
    assert late["status"]["message"] == "Pod was rejected: The node had condition: [MemoryPressure]. "
    edge.wait_ready("asked")

    wait_until(lambda: edge.agent.condition("MemoryPressure")["status"] == "False", 30 + TRANSITION_S)
    wait_until(lambda: not has_taint(edge, "node.kubernetes.io/memory-pressure"), 30)
    assert ("Evicted", message) in edge.events("eater")
    (told,) = [one for one in edge.get("events")["items"] if one["reason"] == "Evicted" and one["message"] == message]
    assert told["metadata"]["annotations"]["starved_resource"] == "memory"
    assert told["metadata"]["annotations"]["offending_containers"] == "main"
    node_events = edge.get(f"/api/v1/namespaces/default/events?fieldSelector=involvedObject.name={edge.node}")
    assert {"EvictionThresholdMet", "NodeHasInsufficientMemory"} <= {one["reason"] for one in node_events["items"]}

    edge.agent.kill9()
    edge.agent.start()
    edge.agent.wait_ready()
    edge.run(pod("after"))
    edge.wait_ready("after", "kept")
    assert edge.pod("eater")["status"]["reason"] == "Evicted"
    kept = edge.pod("kept")
    assert (kept["status"]["containerStatuses"][0]["containerID"], restarts(kept)) == (before, 0)


def test_who_writes_more_than_he_may_goes(edge: Edge) -> None:
    limited = {"limits": {"ephemeral-storage": "8Mi"}}
    cache = [{"name": "cache", "emptyDir": {"sizeLimit": "8Mi"}}]
    log = f"yes 0123456789012345678901234567890123456789 | head -c 12m; {SLEEP}"
    edge.run(
        pod("modest", container(writes("/cache/file", 4), resources=limited, volumeMounts=CACHE), volumes=cache),
        pod("volume", container(writes("/cache/file", 12), volumeMounts=CACHE), volumes=cache),
        pod("layer", container(writes("/file", 12), resources=limited), container(name="other", resources=limited)),
        pod("log", container(log, resources=limited)),
    )
    expected = {
        "volume": 'Usage of EmptyDir volume "cache" exceeds the limit "8Mi". ',
        "layer": 'Container main exceeded its local ephemeral storage limit "8Mi". ',
        "log": "Pod ephemeral local storage usage exceeds the total limit of containers 8Mi. ",
    }
    for name, message in expected.items():
        gone = evicted(edge, name, 60)
        assert gone["status"]["message"] == message
        assert condition(gone, "DisruptionTarget") == {}
        wait_until(lambda name=name, message=message: ("Evicted", message) in edge.events(name))  # type: ignore[misc]
    assert edge.pod("modest")["status"]["phase"] == "Running"
    assert restarts(edge.pod("modest")) == 0


def test_a_full_disk_costs_the_pod_that_filled_it_also_while_cut_off_and_neither_record_nor_agent(
    small_disk: Callable[[], Path],
    agent: AgentFactory,
    one_containerd: Containerd,
    control_plane: ControlPlane,
    namespace: str,
) -> None:
    root = small_disk() / "root"
    node: Agent = agent(
        flags=[f"--root-dir={root}", "--eviction-hard=nodefs.available<15%", "--eviction-pressure-transition-period=3s"]
    )
    edge = Edge(node, one_containerd, control_plane, namespace)
    edge.run(pod("kept"))
    edge.wait_ready("kept")
    pid = edge.agent.pid
    fills = container(f"until [ -e /cache/now ]; do sleep 0.2; done; {writes('/cache/file', 1000)}", volumeMounts=CACHE)
    edge.run(pod("filler", fills, volumes=[{"name": "cache", "emptyDir": {}}]))
    edge.wait_ready("filler")
    volumes = root / "pods" / edge.pod("filler")["metadata"]["uid"] / "volumes"
    (cache,) = volumes.glob("*/cache")
    control_plane.cut_off()
    (cache / "now").touch()
    wait_until(lambda: not volumes.exists(), 60, what="the pod that filled the disk is ended")
    control_plane.reconnect()
    filler = evicted(edge, "filler", 60)
    low = "The node was low on resource: ephemeral-storage. Threshold quantity: "
    assert filler["status"]["message"].startswith(low)
    assert condition(filler, "DisruptionTarget")["reason"] == "TerminationByKubelet"
    wait_until(lambda: ("Evicted", filler["status"]["message"]) in edge.events("filler"), 30)

    wait_until(lambda: edge.agent.condition("DiskPressure")["status"] == "False", 60)
    wait_until(lambda: edge.agent.condition("RecordUnavailable").get("status", "False") == "False", 30)
    edge.run(pod("after"))
    edge.wait_ready("after", "kept")
    assert (edge.agent.running, edge.agent.pid) == (True, pid)
    edge.agent.kill9()
    edge.agent.start()
    edge.agent.wait_ready()
    edge.wait_ready("after", "kept")
    assert edge.pod("filler")["status"]["reason"] == "Evicted"
    assert [restarts(edge.pod(name)) for name in ("kept", "after")] == [0, 0]
    assert "Traceback" not in edge.agent_log()
