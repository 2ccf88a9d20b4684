"""Nodes that allow host programs in the test's own namespace, and the traces that scripts leave on this machine."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hack.control_plane import ControlPlane
from hack.runtime import Containerd, Generation
from tests.integration.agent.edge import Edge
from tests.integration.conftest import AgentFactory

Object = dict[str, Any]


def allowing(*namespaces: str, accounts: str = "default") -> tuple[str, ...]:
    """The agent's flags."""
    return (
        "--scripts-enabled",
        f"--scripts-namespaces={','.join(namespaces)}",
        f"--scripts-service-accounts={accounts}",
    )


def script(name: str, *args: str, annotations: dict[str, str] | None = None, **spec: Any) -> Object:
    """A bash pod in the seed's shape. Without a token, for which something would have to be made on this machine."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations or {"type": "bash"}},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": False,
            "containers": [{"name": "main", "image": "bash", "args": list(args)}],
            **spec,
        },
    }


class Marked:
    """Processes that were started with a mark in their environment, wherever they went since."""

    def __init__(self) -> None:
        self.mark = f"EDGELET_TEST={uuid.uuid4().hex}"

    @property
    def env(self) -> list[dict[str, str]]:
        name, value = self.mark.split("=")
        return [{"name": name, "value": value}]

    def pids(self) -> set[int]:
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "environ").read_bytes().split(b"\0")
                dead = (process / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            except OSError:
                continue
            if self.mark.encode() in words and not dead:
                found.add(int(process.name))
        return found


@pytest.fixture
def marked() -> Marked:
    return Marked()


@pytest.fixture(scope="session")
def one_containerd(runtimes: Callable[[Generation], Containerd]) -> Containerd:
    return runtimes(Generation.DISTRIBUTION)


@pytest.fixture
def edge(agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str) -> Edge:
    """Allows scripts in the test's namespace."""
    return Edge(agent(flags=allowing(namespace)), one_containerd, control_plane, namespace)


@pytest.fixture
def every_edge(agent: AgentFactory, containerd: Containerd, control_plane: ControlPlane, namespace: str) -> Edge:
    """The same on each generation of the runtime."""
    return Edge(agent(flags=allowing(namespace)), containerd, control_plane, namespace)
