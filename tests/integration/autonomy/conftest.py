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
from hack.processes import free_port
from hack.runtime import Containerd, Generation
from hack.workspace import unmount_below
from tests.integration.agent.edge import Edge, pod
from tests.integration.autonomy.local import Local
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
def outpost_flags() -> list[str]:
    """More flags of the agent: a test overrides it by parametrizing."""
    return []


def through(way: Relay | int, plane: ControlPlane, node: str) -> Path:
    """The node's kubeconfig, by way of the relay or of what listens on a port of loopback."""
    direct = plane.node_kubeconfig(node)
    config = yaml.safe_load(direct.read_text())
    # The API server's certificate is not for the relay's address.
    config["clusters"][0]["cluster"] |= {
        "server": f"https://127.0.0.1:{way}" if isinstance(way, int) else way.url,
        "tls-server-name": "kubernetes",
    }
    path = direct.with_name(f"relayed-{node}.conf")
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    folder = tmp_path / "manifests"
    folder.mkdir()
    return folder


def put_static(outpost: Outpost, manifests: Path, name: str) -> None:
    static = pod(name, metadata={"namespace": outpost.namespace})
    (manifests / f"{name}.yaml").write_text(yaml.safe_dump(static))


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
    flags = [f"--kubeconfig={through(relay, control_plane, node)}", *outpost_flags]
    return Outpost(agent(node, flags=flags, manifests=manifests), one_containerd, control_plane, namespace, relay)


@pytest.fixture
def more_flags() -> list[str]:
    """A test overrides it by parametrizing."""
    return []


@pytest.fixture
def local(
    agent: AgentFactory,
    one_containerd: Containerd,
    control_plane: ControlPlane,
    namespace: str,
    relay: Relay,
    more_flags: list[str],
) -> Iterator[Local]:
    port, node = free_port(), f"edge-{uuid.uuid4().hex[:6]}"
    link = through(relay, control_plane, node)
    made = agent(node, flags=[f"--local-api=127.0.0.1:{port}", f"--kubeconfig={link}", *more_flags])
    yield Local(Edge(made, one_containerd, control_plane, namespace), port, relay)
    if not control_plane.api_server.running:
        # Controllers that were alone for a while take their time: new ones don't.
        control_plane.controller_manager.kill()
        control_plane.scheduler.kill()
        control_plane.reconnect()
