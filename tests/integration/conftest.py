"""Fixtures of the integration tests: a containerd of either generation, a control plane, agents, all of them real.

Everything lives in one workspace (folder, bridges, subnets, cgroup) that belongs to this run alone, and is cleared at
the end; after a failure the logs stay in it and their ends are shown with the failed test.
"""

import os
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from hack.agent import Agent
from hack.control_plane import ControlPlane
from hack.runtime import Containerd, Generation
from hack.workspace import Workspace
from tests.integration.autonomy.relay import FarEnd, Relay
from tests.integration.support.waiting import wait_until

FAILED = pytest.StashKey[bool]()
BEGAN = pytest.StashKey[float]()
TELLING_LOGS = ("agent.log", "containerd.log")
"""Shown with a failure. Those of the control plane hardly ever hold the reason, but stay in the folder."""


class AgentFactory(Protocol):
    """Makes agents and starts them; all are ended, with their pods, after the test."""

    def __call__(
        self,
        node: str = "",
        *,
        flags: Sequence[str] = (),
        standalone: bool = False,
        manifests: Path | None = None,
        runtime: Containerd | None = None,
        wait: bool = True,
    ) -> Agent: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without root nothing that needs a workspace can run."""
    if os.geteuid() != 0:
        for item in items:
            if "workspace" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of the logs that grew in a test with its failure, and remember that there was one."""
    began = item.stash.setdefault(BEGAN, call.start)
    report = yield
    if report.failed and (workspace := getattr(item, "funcargs", {}).get("workspace")):
        item.session.stash[FAILED] = True
        for name in TELLING_LOGS:
            for log in sorted(log for log in workspace.folder.glob(f"*/{name}") if log.stat().st_mtime >= began):
                report.sections.append((str(log), "\n".join(log.read_text(errors="replace").splitlines()[-60:])))
    return report


@pytest.fixture(scope="session")
def workspace(request: pytest.FixtureRequest) -> Iterator[Workspace]:
    held = Workspace()
    yield held
    held.release(keep_logs=request.session.stash.get(FAILED, False))


@pytest.fixture(scope="session")
def runtimes(workspace: Workspace) -> Iterator[Callable[[Generation], Containerd]]:
    """Starts each generation once, when it is first asked for."""
    started: dict[Generation, Containerd] = {}

    def running(generation: Generation) -> Containerd:
        if generation not in started:
            started[generation] = Containerd(workspace, generation, bridge_index=len(started))
        started[generation].start()
        return started[generation]

    yield running
    for runtime in started.values():
        runtime.start()  # a failed test may have left it stopped
        runtime.remove_all_pods()
        runtime.stop()


@pytest.fixture(scope="session", params=list(Generation), ids=lambda generation: f"containerd-{generation}")
def containerd(request: pytest.FixtureRequest, runtimes: Callable[[Generation], Containerd]) -> Containerd:
    """Every test that asks for it runs on both generations; `one_containerd` is for those that needn't."""
    return runtimes(request.param)


@pytest.fixture(scope="session")
def one_containerd(runtimes: Callable[[Generation], Containerd]) -> Containerd:
    """containerd 2 alone, for what does not depend on the runtime."""
    return runtimes(Generation.BUILT)


@pytest.fixture(scope="session")
def control_plane(workspace: Workspace) -> Iterator[ControlPlane]:
    plane = ControlPlane(workspace.folder / "control-plane")
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture(scope="session")
def far_end(workspace: Workspace) -> Iterator[FarEnd]:
    """It outlives every agent: what one says to an address that is not there would leave the machine."""
    made = FarEnd(workspace)
    yield made
    made.close()


@pytest.fixture
def relay(far_end: FarEnd, control_plane: ControlPlane) -> Iterator[Relay]:
    made = Relay(far_end, control_plane.port)
    yield made
    made.close()


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A namespace of the test's own, in which pods can be created."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    control_plane.kubectl("create", "namespace", name)
    # After a restart of the API server its controllers come back when their pause is over, which may be half a minute.
    wait_until(lambda: control_plane.kubectl("get", "serviceaccount", "default", "--namespace", name), 90)
    yield name
    # Its node may be gone by now, so nobody would confirm the end of a pod.
    force = ("--all", "--force", "--grace-period=0", "--wait=false")
    control_plane.kubectl("delete", "namespace", name, "--wait=false", check=False)
    control_plane.kubectl("delete", "pods", "--namespace", name, *force, check=False)


@pytest.fixture
def crictl(containerd: Containerd) -> Callable[..., str]:
    return containerd.crictl


@pytest.fixture
def agent(request: pytest.FixtureRequest, workspace: Workspace) -> Iterator[AgentFactory]:
    """A factory. Its default runtime is the test's `containerd` (or `one_containerd`)."""
    made: list[tuple[Agent, Containerd]] = []

    def make(
        node: str = "",
        *,
        flags: Sequence[str] = (),
        standalone: bool = False,
        manifests: Path | None = None,
        runtime: Containerd | None = None,
        wait: bool = True,
    ) -> Agent:
        name = "one_containerd" if "one_containerd" in request.fixturenames else "containerd"
        used: Containerd = runtime or request.getfixturevalue(name)
        plane = None if standalone else request.getfixturevalue("control_plane")
        number = sum(1 for _ in workspace.folder.glob("agent-*"))
        node = node or f"edge-{number}"
        process = Agent(workspace.folder / f"agent-{number}", node, used, plane, flags, manifests)
        made.append((process, used))
        process.start()
        if wait:
            process.wait_ready()
        return process

    yield make
    for process, used in made:
        process.stop()
        process.delete_node()
        used.start()  # a failed test may have left it stopped
        used.remove_all_pods()
