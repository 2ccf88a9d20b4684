"""A node, a namespace, and kubectl with either of its protocols."""

from __future__ import annotations

import pytest

from hack.control_plane import ControlPlane
from hack.runtime import Containerd
from tests.integration.agent.edge import Edge
from tests.integration.conftest import AgentFactory
from tests.integration.server.client import Kubectl


@pytest.fixture
def edge(agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str) -> Edge:
    return Edge(agent(), one_containerd, control_plane, namespace)


@pytest.fixture
def every_edge(agent: AgentFactory, containerd: Containerd, control_plane: ControlPlane, namespace: str) -> Edge:
    """Once on each generation of the runtime."""
    return Edge(agent(), containerd, control_plane, namespace)


@pytest.fixture
def foreign_edge(agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str) -> Edge:
    """On a provider that takes plain byte streams."""
    flags = ["--provider=tests.integration.server.process_provider:ProcessProvider", "--disable-taint"]
    return Edge(agent(flags=flags), one_containerd, control_plane, namespace)


@pytest.fixture(params=[True, False], ids=["websocket", "spdy"])
def kubectl(request: pytest.FixtureRequest, control_plane: ControlPlane, namespace: str) -> Kubectl:
    """What kubectl speaks to the API server; that speaks SPDY to nodes of today."""
    return Kubectl(control_plane.admin_kubeconfig, namespace, request.param)
