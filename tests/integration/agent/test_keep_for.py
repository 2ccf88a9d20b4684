"""`edgelet.io/keep-for`: what is left of an ended pod stays for people to look at, and then goes."""

from __future__ import annotations

import json
from pathlib import Path

from hack.runtime import Containerd
from tests.integration.agent.edge import Edge, Object, container, pod
from tests.integration.support.waiting import wait_until

KEEP = "edgelet.io/keep-for"


def keeping(name: str, duration: str, *containers: Object, **spec: object) -> Object:
    return pod(name, *containers, metadata={"annotations": {KEEP: duration}}, **spec)


def dead(edge: Edge, name: str) -> Object | None:
    """The pod's only container, which has ended; None where there is none."""
    found = [c for c in edge.containers() if c["labels"]["io.kubernetes.pod.name"] == name]
    assert len(found) <= 1
    return found[0] if found and found[0]["state"] == "CONTAINER_EXITED" else None


def layer_exists(runtime: Containerd, container_id: str) -> bool:
    """Its writable layer: the snapshot that bears its id."""
    return container_id in runtime.ctr("snapshots", "ls")


def test_a_deleted_pod_goes_from_the_cluster_and_stays_on_the_node_until_its_time_is_over(every_edge: Edge) -> None:
    edge, runtime = every_edge, every_edge.runtime
    cache: Object = {"name": "cache", "emptyDir": {}}
    writes = container(
        "echo written >/trace; echo said; exit 3", volumeMounts=[{"name": "cache", "mountPath": "/cache"}]
    )
    edge.run(keeping("job", "25s", writes, restartPolicy="Never", volumes=[cache]))
    uid = edge.wait_phase("job", "Failed")["metadata"]["uid"]
    wait_until(lambda: "KeptForDebugging" in [reason for reason, _ in edge.events("job")], 10)
    edge.delete("pod/job")
    edge.wait_gone("job", timeout=10)

    left = dead(edge, "job")
    assert left is not None
    assert runtime.crictl("logs", left["id"]) == "said\n"
    assert json.loads(runtime.crictl("inspect", left["id"]))["status"]["exitCode"] == 3
    assert layer_exists(runtime, left["id"])
    assert not list(Path(edge.agent.root_dir).glob(f"pods/{uid}/volumes/*/*"))

    # Another of its name runs beside it, and the agent finds it again after its own end.
    edge.run(keeping("job", "0", container(), restartPolicy="Never"))
    edge.wait_ready("job")
    edge.delete("pod/job")
    wait_until(lambda: [c["id"] for c in edge.containers()] == [left["id"]], 10)
    edge.agent.kill9()
    edge.agent.start()
    edge.agent.wait_ready()
    assert [c["id"] for c in edge.containers()] == [left["id"]]

    wait_until(lambda: not edge.sandboxes(), 40, what="collected")
    assert edge.containers() == []
    assert not layer_exists(runtime, left["id"])
    assert [folder for folder in edge.agent.pod_logs_dir.iterdir() if uid in folder.name] == []
    wait_until(lambda: "KeptPodCollected" in [reason for reason, _ in edge.events("job")], 10)


def test_a_finished_pod_loses_its_containers_and_not_its_status(edge: Edge) -> None:
    edge.run(keeping("job", "4s", container("echo said"), restartPolicy="Never"))
    ended = edge.wait_phase("job", "Succeeded")
    assert edge.log("job") == "said\n"
    wait_until(lambda: not edge.sandboxes(), 15, what="collected")
    wait_until(lambda: "KeptPodCollected" in [reason for reason, _ in edge.events("job")], 10)
    edge.agent.kill9()
    edge.agent.start()
    edge.agent.wait_ready()
    assert edge.pod("job")["status"]["containerStatuses"] == ended["status"]["containerStatuses"]
    assert edge.sandboxes() == []


def test_a_wrong_duration_is_said_and_keeps_nothing(edge: Edge) -> None:
    edge.run(keeping("job", "soon", container("true"), restartPolicy="Never"))
    edge.wait_phase("job", "Succeeded")
    told = wait_until(lambda: [said for reason, said in edge.events("job") if reason == "InvalidPolicy"], 10)
    assert told == [f"annotation {KEEP}='soon' does not count: 'soon' is no duration: write 90s or 1m30s"]
    edge.delete("pod/job")
    edge.wait_gone("job")
    wait_until(lambda: not edge.sandboxes(), 10)
