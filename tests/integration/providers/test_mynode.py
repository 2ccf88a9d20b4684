"""containerd under its older names goes through the same contract."""

from __future__ import annotations

from hack.control_plane import ControlPlane
from hack.runtime import Containerd
from tests.integration.agent.edge import Edge, pod
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until


def test_a_pod_has_a_kubelets_events_once_each_and_no_others(
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
    edge.kubectl("label", "pod", "web", "colour=red")
    edge.agent.kill9()
    edge.agent.start()
    edge.agent.wait_ready()
    edge.run(pod("next"))
    edge.wait_ready("next")
    # Events are told in order: with these, those of the first pod are told too.
    wait_until(lambda: [reason for reason, _ in edge.events("next")] == ["Pulled", "Created", "Started"])
    assert [reason for reason, _ in edge.events("web")] == ["Pulled", "Created", "Started"]
