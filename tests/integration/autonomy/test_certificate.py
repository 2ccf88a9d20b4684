"""A node whose certificate ends while it is cut off: its pods don't notice, and it comes back by itself."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from agent.kube.x509_facts import validity
from hack.agent import Agent
from hack.control_plane import ControlPlane
from hack.joining import Joining
from hack.runtime import Containerd
from hack.workspace import Workspace
from tests.integration.agent.edge import Edge, container, is_ready, pod, restarts
from tests.integration.support.waiting import wait_until

LIFE_S = 40
"""Of a certificate, beside the five minutes of the past that the signer adds."""
NODE = "expires"


@pytest.fixture
def joining(workspace: Workspace) -> Iterator[Joining]:
    plane = ControlPlane(workspace.folder / "short-lived-plane", signing_duration=f"{LIFE_S}s")
    try:
        plane.start()
        yield Joining(plane)
    finally:
        plane.stop()


@pytest.fixture
def edge(joining: Joining, workspace: Workspace, one_containerd: Containerd) -> Iterator[Edge]:
    """A node that joined by token, and kept one for its return."""
    folder = Path(tempfile.mkdtemp(prefix="machine-", dir=workspace.folder))
    kept = folder / "bootstrap-kubeconfig"
    joining.join(folder, NODE, f"--bootstrap-kubeconfig={kept}")
    flags = [
        f"--kubeconfig={folder / 'kubeconfig'}",
        f"--root-dir={folder / 'root'}",
        f"--bootstrap-kubeconfig={kept}",
        "--rotate-certificates=false",  # else it would end at another moment than the test thinks
    ]
    agent = Agent(folder / "agent", NODE, one_containerd, joining.plane, flags)
    agent.start()
    agent.wait_ready()
    joining.plane.kubectl("create", "namespace", "shop")
    wait_until(lambda: joining.plane.kubectl("get", "serviceaccount", "default", "--namespace=shop"))
    yield Edge(agent, one_containerd, joining.plane, "shop")
    agent.stop()
    one_containerd.remove_all_pods()


def running(edge: Edge) -> dict[str, str]:
    """Container IDs by pod."""
    return {
        c["labels"]["io.kubernetes.pod.name"]: c["id"] for c in edge.containers() if c["state"] == "CONTAINER_RUNNING"
    }


def test_pods_go_on_while_the_certificate_ends_and_the_node_comes_back_with_another(edge: Edge, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    certificate = edge.agent.folder.parent / "root" / "pki" / "kubelet-client-current.pem"
    ends_at = validity(certificate.read_bytes()).ends
    alive = {
        "exec": {"command": ["test", "!", "-e", "/shared/ill"]},
        "initialDelaySeconds": 5,  # time for the test to see the restart and to heal before the next probe
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    main = container(livenessProbe=alive, volumeMounts=[{"name": "shared", "mountPath": "/shared"}])
    volume = {"name": "shared", "hostPath": {"path": str(tmp_path)}}
    edge.run(pod("steady"), pod("watched", main, volumes=[volume], terminationGracePeriodSeconds=1))
    edge.wait_ready("steady", "watched")
    before = running(edge)

    edge.plane.cut_off()
    edge.plane.controller_manager.kill()  # else it would look for the API server more and more seldom
    time.sleep(max(0.0, ends_at + 1 - time.time()))
    (tmp_path / "ill").touch()
    again = wait_until(lambda: (found := running(edge).get("watched")) and found != before["watched"] and found)
    (tmp_path / "ill").unlink()
    edge.agent.kill9()
    edge.agent.start()
    wait_until(lambda: edge.agent_log().count("starts as node") == 2)
    assert running(edge) == {"steady": before["steady"], "watched": again}

    edge.plane.reconnect()
    wait_until(lambda: validity(certificate.read_bytes()).ends > ends_at, 60, what="another certificate")
    wait_until(lambda: restarts(edge.pod("watched")) == 1 and is_ready(edge.pod("watched")))
    lease_path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}"

    def renewed_at() -> float:
        return datetime.fromisoformat(edge.get(lease_path)["spec"]["renewTime"]).timestamp()

    wait_until(lambda: renewed_at() > ends_at, what="the lease is renewed")
    assert restarts(edge.pod("steady")) == 0
    assert running(edge) == {"steady": before["steady"], "watched": again}
