"""Nodes of the mock provider."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from hack.agent import Agent
from hack.control_plane import ControlPlane
from hack.workspace import Workspace
from tests.integration.providers.fleet import Fleet

MockFleet = Callable[..., Fleet]


@pytest.fixture
def mock_fleet(
    workspace: Workspace, control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> Iterator[MockFleet]:
    """A factory of Ready nodes whose pods only seem to run; `config` is the mock's, in `tmp_path`/mock.yaml."""
    made: list[Agent] = []

    def make(config: str = "", flags: Sequence[str] = ()) -> Fleet:
        number = sum(1 for _ in workspace.folder.glob("agent-*"))
        file = tmp_path / "mock.yaml"
        file.write_text(config)
        own = ["--provider=mock", f"--provider-config={file}", "--log-level=info", *flags]
        agent = Agent(workspace.folder / f"agent-{number}", f"edge-{number}", None, control_plane, own)
        made.append(agent)
        agent.start()
        agent.wait_ready()
        return Fleet(agent, control_plane, namespace)

    yield make
    for agent in made:
        agent.stop()
        agent.delete_node()
