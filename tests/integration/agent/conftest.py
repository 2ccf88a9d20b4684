"""An agent joined to the control plane, and the namespace of the test on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hack.control_plane import ControlPlane
from hack.runtime import Containerd, Generation
from tests.integration.agent.edge import Edge
from tests.integration.conftest import AgentFactory


@pytest.fixture(scope="session")
def one_containerd(runtimes: Callable[[Generation], Containerd]) -> Containerd:
    """Here the distribution's: it is the one with fewer facilities, and the one that most machines have."""
    return runtimes(Generation.DISTRIBUTION)


@pytest.fixture
def edge(agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str) -> Edge:
    """A Ready node of its own, on one runtime."""
    return Edge(agent(), one_containerd, control_plane, namespace)


@pytest.fixture
def every_edge(agent: AgentFactory, containerd: Containerd, control_plane: ControlPlane, namespace: str) -> Edge:
    """The same, once on each generation of the runtime."""
    return Edge(agent(), containerd, control_plane, namespace)


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    folder = tmp_path / "manifests"
    folder.mkdir()
    return folder
