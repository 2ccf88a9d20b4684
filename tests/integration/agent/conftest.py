"""An agent joined to the control plane, and the namespace of the test on it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack.agent import Agent
from hack.control_plane import ControlPlane
from hack.runtime import Containerd, Generation
from hack.workspace import Workspace
from tests.integration.agent.edge import Edge
from tests.integration.conftest import AgentFactory

IMAGES_MIB = 400
"""The disk of `small_runtime`."""
SMALL_BRIDGE = 5
"""Its network's, for there is one at a time."""


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


@pytest.fixture(scope="module")
def resident(workspace: Workspace, control_plane: ControlPlane) -> Iterator[Callable[[Containerd], Agent]]:
    """One agent a runtime for all tests of a module, where none of them harms it or needs it untouched."""
    running: dict[Containerd, Agent] = {}

    def on(runtime: Containerd) -> Agent:
        if runtime not in running:
            number = sum(1 for _ in workspace.folder.glob("agent-*"))
            running[runtime] = Agent(workspace.folder / f"agent-{number}", f"edge-{number}", runtime, control_plane)
            running[runtime].start()
            running[runtime].wait_ready()
        return running[runtime]

    yield on
    for runtime, process in running.items():
        process.stop()
        process.delete_node()
        runtime.remove_all_pods()


@pytest.fixture
def guest(
    resident: Callable[[Containerd], Agent], one_containerd: Containerd, control_plane: ControlPlane, namespace: str
) -> Edge:
    """A namespace on the module's node."""
    return Edge(resident(one_containerd), one_containerd, control_plane, namespace)


@pytest.fixture
def every_guest(
    resident: Callable[[Containerd], Agent], containerd: Containerd, control_plane: ControlPlane, namespace: str
) -> Edge:
    """The same, once on each generation of the runtime."""
    return Edge(resident(containerd), containerd, control_plane, namespace)


@pytest.fixture
def small_disk(workspace: Workspace) -> Iterator[Callable[..., Path]]:
    """Makes a folder on a file system of so many MiB, none of it kept for root; once a test."""
    image, folder = workspace.folder / "small.img", workspace.folder / "small"

    def mounted(mib: int = 64) -> Path:
        folder.mkdir(exist_ok=True)
        with image.open("wb") as file:
            file.truncate(mib * 2**20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
        return folder

    yield mounted
    subprocess.run(["umount", "--recursive", str(folder)], check=False, capture_output=True)
    image.unlink(missing_ok=True)


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    folder = tmp_path / "manifests"
    folder.mkdir()
    return folder


@pytest.fixture(params=list(Generation), ids=lambda generation: f"containerd-{generation}")
def small_runtime(
    request: pytest.FixtureRequest, workspace: Workspace, small_disk: Callable[..., Path]
) -> Iterator[Containerd]:
    """A containerd whose images and containers are on a small disk of their own."""
    runtime = Containerd(workspace, request.param, SMALL_BRIDGE, root=small_disk(IMAGES_MIB) / "root")
    runtime.start()
    yield runtime
    runtime.remove_all_pods()
    runtime.stop()
