"""A node whose way to the API server is a relay of the test's own.

The distribution's containerd alone: what a node does without its network or its disk does not depend on it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hack.control_plane import ControlPlane
from hack.runtime import Containerd, Generation
from hack.workspace import unmount_below
from tests.integration.agent.edge import Edge
from tests.integration.autonomy.relay import Cut, Relay
from tests.integration.conftest import AgentFactory


@dataclass(frozen=True)
class Outpost(Edge):
    """An Edge whose link can be cut; everybody else still reaches the API server."""

    relay: Relay

    def cut(self, how: Cut = Cut.REFUSED) -> None:
        self.relay.cut(how)

    def heal(self) -> None:
        self.relay.heal()

    def lose_power(self) -> None:
        """The agent, every container and everything in memory is gone; what was on disk is there. The runtime is up."""
        self.agent.kill9()
        self.runtime.lose_power()
        unmount_below(self.agent.root_dir)
        self.runtime.start()


@pytest.fixture(scope="session")
def one_containerd(runtimes: Callable[[Generation], Containerd]) -> Containerd:
    return runtimes(Generation.DISTRIBUTION)


@pytest.fixture
def relay(control_plane: ControlPlane) -> Iterator[Relay]:
    made = Relay(control_plane.port)
    yield made
    made.close()


@pytest.fixture
def outpost_flags() -> list[str]:
    """More flags of the agent: a test overrides it by parametrizing."""
    return []


def through(relay_port: int, plane: ControlPlane, node: str) -> Path:
    """The node's kubeconfig, by way of the relay."""
    direct = plane.node_kubeconfig(node)
    config = yaml.safe_load(direct.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{relay_port}"
    path = direct.with_name(f"relayed-{node}.conf")
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    folder = tmp_path / "manifests"
    folder.mkdir()
    return folder


@pytest.fixture
def outpost(
    agent: AgentFactory,
    one_containerd: Containerd,
    control_plane: ControlPlane,
    namespace: str,
    relay: Relay,
    manifests: Path,
    outpost_flags: list[str],
) -> Outpost:
    node = f"outpost-{uuid.uuid4().hex[:6]}"
    flags = [f"--kubeconfig={through(relay.port, control_plane, node)}", *outpost_flags]
    return Outpost(agent(node, flags=flags, manifests=manifests), one_containerd, control_plane, namespace, relay)
