"""containerd under its older names goes through the same contract."""

from __future__ import annotations

from hack.control_plane import ControlPlane
from hack.runtime import Containerd
from tests.integration.agent.edge import Edge, pod
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until


def test_a_pod_has_virtual_kubelets_events_beside_the_kubelets_own_once_each(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str
) -> None:
    edge = Edge(agent(flags=["--provider=mynode"]), one_containerd, control_plane, namespace)
    node = edge.agent.node_object()
    # The control plane's own taint of a new Node may not be gone yet.
    assert not [taint for taint in node["spec"].get("taints", ()) if "kubernetes.io/not-ready" not in taint["key"]]
    assert "type" not in node["metadata"]["labels"]
    edge.run(pod("web"))
    edge.wait_ready("web")
    told = {
        "ProviderCreateSuccess": "Create pod in provider successfully",
        "ProviderUpdateSuccess": "Update pod in provider successfully",
    }
    wait_until(lambda: told.items() <= dict(edge.events("web")).items())
    edge.kubectl("label", "pod", "web", "colour=red")
    edge.agent.kill9()
    edge.agent.start()
    edge.agent.wait_ready()
    edge.run(pod("next"))
    edge.wait_ready("next")
    wait_until(lambda: told.items() <= dict(edge.events("next")).items())
    reasons = [reason for reason, _ in edge.events("web")]
    expected = (*told, "Pulled", "Created", "Started")
    assert {reason: reasons.count(reason) for reason in expected} == dict.fromkeys(expected, 1)
