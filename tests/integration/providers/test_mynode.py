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
    flags = ["--provider=mynode", "--cluster-dns=10.96.0.10"]
    edge = Edge(agent(flags=flags), one_containerd, control_plane, namespace)
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


def test_under_its_own_name_containerds_pods_have_a_kubelets_events_and_no_others(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str
) -> None:
    edge = Edge(agent(flags=["--cluster-dns=10.96.0.10"]), one_containerd, control_plane, namespace)
    edge.run(pod("web"))
    edge.wait_ready("web")
    # Events are told in order: with the last, the others are told too.
    edge.run(pod("next"))
    wait_until(lambda: [reason for reason, _ in edge.events("next")] == ["Pulled", "Created", "Started"])
    assert [reason for reason, _ in edge.events("web")] == ["Pulled", "Created", "Started"]
