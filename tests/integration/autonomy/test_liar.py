"""An API server that talks nonsense, and one of another cluster: no pod ends on it, it is said, the node goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hack.control_plane import ControlPlane
from hack.paths import REPOSITORY
from hack.processes import free_port
from hack.runtime import Containerd
from hack.workspace import Workspace
from tests.integration.agent.edge import Edge, Object, container, pod, restarts
from tests.integration.autonomy.conftest import through
from tests.integration.autonomy.liar import Liar, Lie
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

SAID = {
    Lie.NO_PODS: "lists 0 pods of this node and leaves out",
    Lie.UNAUTHORIZED: "cannot watch /api/v1/pods,",
    Lie.BROKEN: "cannot watch /api/v1/pods,",
    Lie.CUT: "cannot watch /api/v1/pods,",
    Lie.PORTAL: "the API server's word is not taken",
}


@dataclass(frozen=True)
class Deceived(Edge):
    liar: Liar
    read_only_port: int

    def container_ids(self) -> dict[str, str]:
        """Of running containers, by pod; none was ever made again."""
        found = self.containers()
        assert all(one["metadata"]["attempt"] == 0 for one in found), found
        return {
            one["labels"]["io.kubernetes.pod.name"]: one["id"] for one in found if one["state"] == "CONTAINER_RUNNING"
        }

    def read(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.read_only_port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def run_three(self) -> dict[str, str]:
        """One with an init container, one with a ConfigMap, one plain; ids of their containers."""
        self.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"mode": "edge"}}
        )
        mode = {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}}
        volume: Object = {"name": "settings", "configMap": {"name": "settings"}}
        mount = {"name": "settings", "mountPath": "/settings"}
        self.run(
            pod("plain"),
            pod("begun", initContainers=[container("true", name="first")]),
            pod("configured", container(env=[mode], volumeMounts=[mount]), volumes=[volume]),
        )
        self.wait_ready("plain", "begun", "configured")
        return self.container_ids()


@pytest.fixture
def deceived(
    agent: AgentFactory,
    one_containerd: Containerd,
    control_plane: ControlPlane,
    namespace: str,
    tmp_path: Path,
) -> Iterator[Deceived]:
    node, port = f"deceived-{uuid.uuid4().hex[:6]}", free_port()
    liar = Liar(control_plane, node, tmp_path)
    kubeconfig = through(liar.port, control_plane, node)
    process = agent(node, flags=[f"--kubeconfig={kubeconfig}", f"--read-only-port={port}", "--full-resync-period=1s"])
    yield Deceived(process, one_containerd, control_plane, namespace, liar, port)
    liar.close()


@pytest.fixture
def other_plane(workspace: Workspace) -> Iterator[ControlPlane]:
    plane = ControlPlane(workspace.folder / "other-plane")
    plane.start()
    yield plane
    plane.stop()


def is_told(deceived: Deceived, lie: Lie, before: dict[str, str]) -> dict[str, str]:
    """What runs goes on while the lie is told, and a pod that is made afterwards runs soon: its container."""
    heard = len(deceived.agent_log())

    def said() -> int:
        return deceived.agent_log()[heard:].count(SAID[lie])

    deceived.liar.tell(lie)
    lists = 2 if lie in (Lie.NO_PODS, Lie.CUT) else 0
    wait_until(lambda: deceived.liar.lists >= lists and deceived.liar.asked_for_pods >= 4, what=f"asked: {lie}")
    wait_until(said, what=f"said: {lie}")
    assert deceived.container_ids() == before, lie
    deceived.liar.tell(None)
    name = f"after-{lie.name.lower().replace('_', '-')}"
    deceived.run(pod(name))
    began = time.monotonic()
    deceived.wait_ready(name)
    assert time.monotonic() - began < 15, lie
    after = deceived.container_ids()
    assert after == {**before, name: after[name]}, lie
    assert said() == 1, lie
    return {name: after[name]}


def test_nonsense_ends_no_pod_is_said_once_and_is_over_when_it_is_over(deceived: Deceived) -> None:
    before = deceived.run_three()
    for lie in Lie:
        before |= is_told(deceived, lie, before)
    assert all(restarts(found) == 0 for found in deceived.pods())
    assert deceived.agent.running

    # What is true is believed at once: the last pod of the node, deleted while nobody could hear of it.
    assert len(before) == 8
    deceived.kubectl("delete", "pods", "--all", "--force", "--grace-period=0")
    wait_until(lambda: not deceived.sandboxes(), 15, what="the pods that were deleted end")
    deceived.run(pod("last"))
    deceived.wait_ready("last")
    deceived.liar.tell(Lie.BROKEN)
    deceived.kubectl("delete", "pod", "last", "--force", "--grace-period=0")
    deceived.agent.kill9()
    deceived.liar.tell(Lie.BROKEN)
    deceived.agent.start()
    wait_until(lambda: deceived.liar.asked_for_pods >= 2)
    assert deceived.container_ids().keys() == {"last"}
    deceived.liar.tell(None)
    wait_until(lambda: not deceived.sandboxes(), 15, what="the last pod ends")


def test_another_cluster_behind_the_same_address_ends_no_pod_until_the_owner_says_so(
    deceived: Deceived, other_plane: ControlPlane
) -> None:
    before = deceived.run_three()
    theirs = pod("theirs", nodeName=deceived.node)
    other_plane.kubectl("apply", "--filename=-", stdin=json.dumps(theirs))

    def foreign() -> bool:
        return (
            deceived.read("/healthz/cluster")[0] == 500 and "edgelet_foreign_cluster 1" in deceived.read("/metrics")[1]
        )

    deceived.liar.stand_for(other_plane)
    wait_until(foreign, what="the other cluster is known for one")
    assert deceived.agent_log().count("but it is another cluster's") == 1
    deceived.agent.kill9()
    deceived.agent.start()
    wait_until(lambda: foreign() and deceived.liar.asked_for_pods >= 5, what="known after a restart too")
    assert deceived.container_ids() == before
    assert deceived.sandboxes("default") == []
    # Nothing was told to it either.
    assert other_plane.get("/api/v1/nodes")["items"] == []

    deceived.liar.stand_for(deceived.plane)
    deceived.run(pod("new"))
    deceived.wait_ready("new")
    before["new"] = deceived.container_ids()["new"]
    assert deceived.container_ids() == before
    assert deceived.read("/healthz/cluster") == (200, "ok")
    events = "/api/v1/namespaces/default/events?fieldSelector=reason=ForeignCluster"
    wait_until(lambda: any(one["involvedObject"]["name"] == deceived.node for one in deceived.get(events)["items"]))

    # The owner's word: from now on the node belongs to the other one, which knows none of these pods.
    deceived.liar.stand_for(other_plane)
    deceived.agent.terminate()
    command = [sys.executable, "-m", "agent", "store", "forget-cluster", f"--root-dir={deceived.agent.root_dir}"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([*command, f"--nodename={deceived.node}"], check=True, env=environment, cwd=deceived.agent.folder)
    deceived.agent.start()
    wait_until(lambda: not deceived.sandboxes(), what="pods that the other cluster lacks end")
    ready = f"/api/v1/namespaces/default/pods/{theirs['metadata']['name']}"
    wait_until(lambda: other_plane.get(ready)["status"].get("phase") == "Running", what="its own pods run")
