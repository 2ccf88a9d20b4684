"""Every way to get a program onto the host where its owner has not allowed it: each is refused, and said so."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.control_plane import ControlPlane
from hack.images import BUSYBOX
from hack.runtime import Containerd
from tests.integration.agent.edge import SLEEP, Edge, container, pod, restarts, status_of
from tests.integration.conftest import AgentFactory
from tests.integration.scripts.conftest import allowing, script
from tests.integration.support.waiting import wait_until

DISABLED = "ScriptsDisabled"


@pytest.fixture
def other(agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str) -> Edge:
    """A node that allows scripts, but not here; and here only those of one service account."""
    flags = allowing("elsewhere", namespace, accounts="elsewhere/default,trusted")
    return Edge(agent(flags=flags), one_containerd, control_plane, namespace)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder of the host; whatever is found in it was put there by a program on the host."""
    (tmp_path / "host").touch()
    return tmp_path


def escape(trap: Path) -> str:
    """Leaves a trace where it runs on the host. In a container, the folder is not there."""
    return f"[ -e {trap}/host ] && touch {trap}/escaped; sleep 1000"


def variants(trap: Path) -> Iterator[dict[str, Any]]:
    """Pods of an account that is not listed, in every shape that asks for the host."""
    run = escape(trap)
    yield script("seed", run)
    yield script("ours", run, annotations={"edgelet.io/host": "true"})
    yield script("both", run, annotations={"edgelet.io/host": "true", "type": "bash"})
    main = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", SLEEP]}
    yield script("init", initContainers=[{"name": "init", "image": "x", "args": [run]}], containers=[main])
    sidecar = {"name": "side", "image": "x", "restartPolicy": "Always", "args": [run]}
    yield script("sidecar", initContainers=[sidecar], containers=[main])
    hook = {"postStart": {"exec": {"command": ["bash", "-c", run]}}}
    yield script("hook", containers=[{**main, "lifecycle": hook}])
    yield script("probe", containers=[{**main, "livenessProbe": {"exec": {"command": ["bash", "-c", run]}}}])
    everything = {"name": "root", "hostPath": {"path": "/"}}
    mounted = {
        **main,
        "command": ["bash", "-c", run],
        "securityContext": {"privileged": True},
        "volumeMounts": [{"name": "root", "mountPath": "/host"}],
    }
    yield script("hostpath", containers=[mounted], volumes=[everything], hostPID=True, hostNetwork=True)
    claims = {"kubernetes.io/config.source": "file", "type": "bash"}
    yield script("static-looking", run, annotations=claims)
    yield script("imaged", containers=[{"name": "main", "image": "edgelet.io/host:latest", "args": [run]}])


def test_what_is_not_listed_never_runs_in_any_shape(other: Edge, trap: Path) -> None:
    asked = list(variants(trap))
    names = [made["metadata"]["name"] for made in asked]
    other.run(*copy.deepcopy(asked))
    other.run(script("mirror-looking", escape(trap), annotations={"kubernetes.io/config.mirror": "x"}))
    other.run(pod("neighbour"))
    other.wait_ready("neighbour")
    other.wait_gone("mirror-looking")  # nobody's mirror is no pod
    for name in names:
        wait_until(lambda name=name: DISABLED in dict(other.events(name)), what=f"{name}'s event")  # type: ignore[misc]
        refused = other.pod(name)["status"]
        assert (refused["phase"], refused["reason"]) == ("Pending", DISABLED)
        assert 'service account "default"' in refused["message"]
    time.sleep(1)
    assert not (trap / "escaped").exists()
    assert {c["labels"]["io.kubernetes.pod.name"] for c in other.containers()} == {"neighbour"}
    # A restart of the agent, and whatever is written into the status, change nothing.
    forged = json.dumps({"status": {"phase": "Running", "reason": ""}})
    other.kubectl("patch", "pod", names[0], "--subresource=status", "--type=merge", f"--patch={forged}")
    other.agent.kill9()
    other.agent.start()
    other.agent.wait_ready()
    other.run(pod("second"))
    other.wait_ready("second")
    assert not (trap / "escaped").exists()
    assert {c["labels"]["io.kubernetes.pod.name"] for c in other.containers()} == {"neighbour", "second"}
    other.delete("pod", *names)
    other.wait_gone(*names)


def test_a_runtime_class_gives_no_way_around(other: Edge, trap: Path) -> None:
    runtime_class = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": other.namespace},
        "handler": "runc",
    }
    other.apply(runtime_class)
    try:
        other.run(script("classed", escape(trap), runtimeClassName=other.namespace))
        wait_until(lambda: DISABLED in dict(other.events("classed")))
        assert other.pod("classed")["status"]["reason"] == DISABLED
        assert other.containers() == []
    finally:
        other.kubectl("delete", "runtimeclass", other.namespace)


def test_a_listed_account_is_listed_only_where_it_is(other: Edge, trap: Path) -> None:
    other.kubectl("create", "serviceaccount", "trusted")
    other.run(
        script("trusted", f"touch {trap}/trusted", serviceAccountName="trusted", restartPolicy="Never"),
        script("named-default", escape(trap), serviceAccountName="default"),
    )
    other.wait_phase("trusted", "Succeeded")
    wait_until(lambda: DISABLED in dict(other.events("named-default")))
    assert (trap / "trusted").exists()
    assert not (trap / "escaped").exists()


@pytest.mark.parametrize("flags", [(), allowing("elsewhere")], ids=["off", "elsewhere"])
def test_a_pod_that_runs_cannot_become_a_script(
    agent: AgentFactory,
    one_containerd: Containerd,
    control_plane: ControlPlane,
    namespace: str,
    trap: Path,
    flags: tuple[str, ...],
) -> None:
    edge = Edge(agent(flags=flags), one_containerd, control_plane, namespace)
    _turn(edge, trap)


def test_a_pod_that_runs_cannot_become_a_script_even_where_scripts_are_allowed(edge: Edge, trap: Path) -> None:
    _turn(edge, trap)


def _turn(edge: Edge, trap: Path) -> None:
    """Annotate a running pod, then let its container start anew, before and after a restart of the agent."""
    edge.run(pod("turning", container(f"[ -e {trap}/host ] && touch {trap}/escaped; {SLEEP}")))
    edge.wait_ready("turning")
    edge.kubectl("annotate", "pod", "turning", "type=bash", "edgelet.io/host=true")
    wait_until(lambda: DISABLED in dict(edge.events("turning")))
    for count, again in ((1, False), (2, True)):
        if again:
            edge.agent.kill9()
            edge.agent.start()
            edge.agent.wait_ready()
        running = status_of(edge.pod("turning"))["containerID"].rpartition("/")[2]
        edge.runtime.crictl("stop", "--timeout=0", running)
        wait_until(lambda count=count: restarts(edge.pod("turning")) == count, 60)  # type: ignore[misc]
        edge.wait_ready("turning")
    # Ephemeral containers are containers, of their image, and nothing of theirs runs on the host.
    ephemeral = {"name": "debug", "image": "x", "command": ["bash", "-c", escape(trap)]}
    patch = json.dumps({"spec": {"ephemeralContainers": [ephemeral]}})
    edge.kubectl("patch", "pod", "turning", "--subresource=ephemeralcontainers", "--type=strategic", f"--patch={patch}")
    wait_until(lambda: any('"x"' in message for _, message in edge.events("turning")))
    assert not (trap / "escaped").exists()
    assert status_of(edge.pod("turning"))["image"].endswith(BUSYBOX.rpartition("/")[2])


@pytest.mark.parametrize("flags", [(), allowing("elsewhere")], ids=["off", "elsewhere"])
def test_a_manifest_on_the_machine_is_refused_as_well(
    agent: AgentFactory, one_containerd: Containerd, trap: Path, flags: tuple[str, ...]
) -> None:
    folder = trap / "manifests"
    folder.mkdir()
    made = list(variants(trap))
    (folder / "all.yaml").write_text(yaml.safe_dump_all(made))
    (folder / "good.yaml").write_text(yaml.safe_dump(pod("good")))
    edge = agent(standalone=True, manifests=folder, flags=flags, wait=False)
    wait_until(lambda: one_containerd.crictl("ps", "--quiet", "--name=main").split())
    wait_until(lambda: edge.log.read_text().count(f"{DISABLED}: This node does not run the pod") >= len(made))
    time.sleep(1)
    assert (
        one_containerd.crictl("pods", "--quiet").split()
        == one_containerd.crictl("pods", "--quiet", f"--name=good-{edge.node}").split()
    )
    assert not (trap / "escaped").exists()
