"""The Node of a real agent, with a node's own identity, in a real control plane."""

import json
import os
import time
from pathlib import Path
from typing import Any

import psutil

from hack.control_plane import ControlPlane
from hack.runtime import Containerd
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

GIVES_UP_S = 30


def _events(plane: ControlPlane, node: str) -> dict[str, str]:
    """Messages by reason."""
    found = plane.kubectl("get", "events", f"--field-selector=involvedObject.name={node}", "--output=json")
    return {event["reason"]: event["message"] for event in json.loads(found)["items"]}


def _lease(plane: ControlPlane, node: str) -> dict[str, Any]:
    found = plane.kubectl("get", "lease", node, "--namespace=kube-node-lease", "--output=json")
    return dict(json.loads(found))


def test_a_node_is_ready_within_three_seconds_and_has_the_machines_capacity(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane
) -> None:
    begun = time.monotonic()
    edge = agent(flags=["--node-labels=site=harbour,node.kubernetes.io/pool=edge", "--max-pods=42"])
    assert time.monotonic() - begun < 3
    node = edge.node_object()
    assert (
        node["metadata"]["labels"].items()
        >= {
            "kubernetes.io/hostname": edge.node,
            "kubernetes.io/os": "linux",
            "site": "harbour",
            "node.kubernetes.io/pool": "edge",
        }.items()
    )
    status = node["status"]
    assert status["capacity"]["cpu"] == str(os.cpu_count())
    assert status["capacity"]["memory"] == f"{psutil.virtual_memory().total // 1024}Ki"
    assert status["capacity"]["pods"] == "42"
    assert status["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://")
    assert {"type": "InternalIP", "address": "127.0.0.1"} in status["addresses"]
    assert status["daemonEndpoints"]["kubeletEndpoint"]["Port"] == edge.port
    assert any("busybox" in name for image in status["images"] for name in image["names"])
    lease = wait_until(lambda: _lease(control_plane, edge.node))
    assert lease["spec"]["holderIdentity"] == edge.node
    assert lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]
    wait_until(lambda: {"Starting", "NodeReady"} <= _events(control_plane, edge.node).keys())


def test_a_deleted_node_is_made_again_within_seconds(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane
) -> None:
    edge = agent()
    first = edge.node_object()["metadata"]["uid"]
    edge.delete_node()
    wait_until(lambda: edge.node_object()["metadata"]["uid"] != first, timeout=5)
    assert edge.condition("Ready")["status"] == "True"


def test_a_stopped_runtime_is_told_with_its_reason_and_its_return_too(
    agent: AgentFactory, one_containerd: Containerd
) -> None:
    edge = agent()
    one_containerd.stop()
    told = wait_until(lambda: (ready := edge.condition("Ready"))["status"] == "False" and ready, timeout=15)
    assert told["reason"] == "KubeletNotReady"
    assert "container runtime is down" in told["message"]
    one_containerd.start()
    wait_until(lambda: edge.condition("Ready")["status"] == "True", timeout=15)


def test_a_stopped_agent_says_why_its_node_is_silent_and_the_next_one_takes_over(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane
) -> None:
    edge = agent()
    since = edge.condition("Ready")["lastTransitionTime"]
    assert edge.terminate() == 0
    told = edge.condition("Ready")
    assert (told["status"], told["reason"]) == ("True", "AgentStopped")
    assert "keep running" in _events(control_plane, edge.node)["AgentStopping"]
    edge.start()
    wait_until(lambda: edge.condition("Ready")["reason"] == "KubeletReady")
    assert edge.condition("Ready")["lastTransitionTime"] == since


def test_a_mistake_ends_the_start_with_one_line_and_code_2(
    agent: AgentFactory, one_containerd: Containerd, tmp_path: Path
) -> None:
    (tmp_path / "edge.yaml").write_text("maxPod: 5\n")
    edge = agent(standalone=True, manifests=tmp_path, flags=[f"--config={tmp_path / 'edge.yaml'}"], wait=False)
    assert edge.daemon.wait(GIVES_UP_S) == 2
    (line,) = edge.log.read_text().splitlines()
    assert line == f"edgelet: {tmp_path / 'edge.yaml'}: unknown key 'maxPod'; did you mean 'maxPods'?"
