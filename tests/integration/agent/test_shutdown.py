"""A machine that goes down: its pods end first and in order, by logind's word or by hand, and nothing is lost by it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.control_plane import ControlPlane
from hack.paths import REPOSITORY
from hack.runtime import Containerd
from tests.fakes.logind import HAS_DBUS, FakeLogind, system_bus
from tests.integration.agent.edge import Edge, Object, condition, container, container_ids, pod, status_of
from tests.integration.agent.test_mirror_pods import ready, static, write
from tests.integration.autonomy.conftest import through
from tests.integration.autonomy.relay import Cut, Relay
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

MESSAGE = "Pod was terminated in response to imminent node shutdown."
SLOW = "trap 'sleep 1; exit 0' TERM; sleep 3600 & wait"


@pytest.fixture
def logind(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLogind]:
    with tempfile.TemporaryDirectory(prefix="bus-") as folder, system_bus(Path(folder)) as (address, made):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        made.delay_s = 60
        yield made


def edgelet(edge: Edge, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent", *args, f"--root-dir={edge.agent.root_dir}"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)


def node_ready(edge: Edge) -> Object:
    return edge.agent.condition("Ready")


@pytest.mark.skipif(not HAS_DBUS, reason="there is no dbus-daemon")
def test_logind_waits_until_the_pods_have_ended_by_priority(
    agent: AgentFactory,
    one_containerd: Containerd,
    control_plane: ControlPlane,
    namespace: str,
    manifests: Path,
    logind: FakeLogind,
) -> None:
    write(manifests, static(namespace, "own"))
    flags = ["--shutdown-grace-period=30s", "--shutdown-grace-period-critical-pods=10s"]
    edge = Edge(agent(flags=flags, manifests=manifests), one_containerd, control_plane, namespace)
    own = f"own-{edge.node}"
    edge.run(
        pod("web", container(SLOW)),
        pod("dns", container(SLOW), priorityClassName="system-cluster-critical"),
    )
    edge.wait_ready("web", "dns", own)
    wait_until(lambda: logind.locks_held == 1)

    logind.shutting_down(True)
    wait_until(lambda: node_ready(edge)["status"] == "False")
    found = node_ready(edge)
    assert (found["reason"], found["message"]) == ("KubeletNotReady", "node is shutting down")
    edge.run(pod("late"))
    late = edge.wait_phase("late", "Failed")["status"]
    assert late["reason"] == "NodeShutdown"
    assert late["message"].endswith("Pod was rejected as the node is shutting down.")
    wait_until(lambda: logind.locks_held == 0, what="the lock is given back")
    ended = {name: edge.wait_phase(name, "Failed") for name in ("web", "dns")}
    for one in ended.values():
        assert (one["status"]["reason"], one["status"]["message"]) == ("Terminated", MESSAGE)
        target = condition(one, "DisruptionTarget")
        assert (target["status"], target["reason"]) == ("True", "TerminationByKubelet")
    began = status_of(ended["web"])["state"]["terminated"]["finishedAt"]
    assert began < status_of(ended["dns"])["state"]["terminated"]["finishedAt"]
    assert not [c for c in edge.containers() if c["state"] == "CONTAINER_RUNNING"]

    # The machine stays up after all: the lock is taken again, and what only this machine has runs again.
    logind.shutting_down(False)
    wait_until(lambda: logind.locks_held == 1)
    wait_until(lambda: node_ready(edge)["status"] == "True")
    ready(edge, own)
    assert edge.pod("web")["status"]["phase"] == "Failed"


def test_a_drain_by_hand_works_cut_off_and_is_taken_back(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str, relay: Relay
) -> None:
    node = "edge-drained"
    flags = [f"--kubeconfig={through(relay, control_plane, node)}"]
    edge = Edge(agent(node, flags=flags), one_containerd, control_plane, namespace)
    edge.run(pod("web"))
    edge.wait_ready("web")
    before = container_ids(edge.pod("web"))
    relay.cut(Cut.REFUSED)
    wait_until(lambda: "does not answer" in edge.agent_log())

    drained = edgelet(edge, "drain", "--grace-period=10s")
    assert drained.returncode == 0, drained.stderr
    lines = drained.stdout.splitlines()
    assert lines[0] == "ending 1 pod of priority 0 and above, within 10 s"
    assert lines[1:] == [f"{namespace}/web has ended", "all pods have ended"]
    assert not [c for c in edge.containers() if c["state"] == "CONTAINER_RUNNING"]

    assert edgelet(edge, "drain", "--undo").returncode == 0
    wait_until(lambda: [c for c in edge.containers() if c["state"] == "CONTAINER_RUNNING"])
    relay.heal()
    edge.wait_ready("web")
    wait_until(lambda: container_ids(edge.pod("web")) != before)
    assert status_of(edge.pod("web"))["lastState"]["terminated"]["exitCode"] == 0

    # Nobody has made another one: with the API server there, it is over for good.
    assert edgelet(edge, "drain", "--grace-period=10s").returncode == 0
    assert edge.wait_phase("web", "Failed")["status"]["message"] == MESSAGE
