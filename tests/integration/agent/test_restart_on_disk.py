"""`edgelet.io/restart-on-disk`: a container that fills its disk is started anew, counted and said."""

from __future__ import annotations

import psutil

from hack.control_plane import ControlPlane
from hack.runtime import Containerd
from tests.integration.agent.edge import SLEEP, Edge, Object, container, pod, restarts, status_of
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

PERCENT = "edgelet.io/restart-on-disk"
LIMITED = {"limits": {"ephemeral-storage": "64Mi"}}


def takes(mib: int) -> str:
    """A command that has so much of the file system. Nothing is written: the end of a container waits for what was."""
    return f"fallocate -l {mib}M /filled"


def writer(name: str, mib: int, percent: str = "50", **spec: object) -> Object:
    """It writes once: what it finds of an earlier run it says."""
    script = f"ls /filled 2>/dev/null; {takes(mib)}; echo wrote; {SLEEP}"
    quick = {"terminationGracePeriodSeconds": 1, **spec}
    return pod(name, container(script, resources=LIMITED), metadata={"annotations": {PERCENT: percent}}, **quick)


def test_a_container_that_fills_its_disk_is_started_anew(every_edge: Edge) -> None:
    edge = every_edge
    edge.run(writer("fills", 40), writer("modest", 8), writer("never", 40, restartPolicy="Never"))
    edge.wait_ready("fills", "modest", "never")
    wait_until(lambda: restarts(edge.pod("fills")) >= 1, 60, what="restarted")
    again = wait_until(
        lambda: (found := status_of(edge.pod("fills"), "main")) and "running" in found["state"] and found, 30
    )
    ended = again["lastState"]["terminated"]
    assert ended["reason"] == "RestartOnDisk"
    assert ended["message"].startswith("Its file system has 40.0 MiB, 63 % of its ephemeral-storage limit of 64.0 MiB")
    told = wait_until(lambda: [said for reason, said in edge.events("fills") if reason == "RestartOnDisk"])
    assert told[0].startswith("Container main is restarted: its file system has 40.0 MiB, 63 %")
    # Its file system is another, and of the old one nothing is left.
    wait_until(lambda: edge.log("fills") == "wrote\n")
    own = [c for c in edge.containers() if c["labels"]["io.kubernetes.pod.name"] == "fills"]
    assert len(own) == 1
    assert ended["containerID"].removeprefix("containerd://") not in edge.runtime.ctr("snapshots", "ls")

    # A changed annotation holds for what runs.
    edge.kubectl("annotate", "pod/modest", f"{PERCENT}=10", "--overwrite")
    wait_until(lambda: restarts(edge.pod("modest")) >= 1, 60, what="restarted by the new value")
    assert restarts(edge.pod("never")) == 0
    assert edge.pod("fills")["status"]["phase"] == "Running"


def test_on_a_full_disk_the_container_that_has_most_of_it_goes_and_kept_pods_before_any_that_runs(
    small_runtime: Containerd, agent: AgentFactory, control_plane: ControlPlane, namespace: str
) -> None:
    flags = ["--eviction-hard=imagefs.available<10%", "--image-gc-high-threshold=100"]
    edge = Edge(agent(flags=flags, runtime=small_runtime), small_runtime, control_plane, namespace)
    # Of a pod that is gone 100 MiB are kept; two with the policy have 60 and 100 more of the 400.
    done = container(takes(100))
    edge.run(pod("done", done, metadata={"annotations": {"edgelet.io/keep-for": "1h"}}, restartPolicy="Never"))
    edge.wait_phase("done", "Succeeded")
    edge.delete("pod/done")
    edge.wait_gone("done")
    assert names(edge) == ["done"]

    before = used(small_runtime)
    percent = str(int(before) + 30)
    edge.run(*(free_writer(name, mib, percent) for name, mib in (("some", 60), ("most", 100))))
    edge.wait_ready("some", "most")
    wait_until(lambda: restarts(edge.pod("most")) == 1, 60, what="the one that has most is restarted")
    wait_until(lambda: used(small_runtime) < int(percent), 30, what="the runtime gives the room back")
    (told,) = wait_until(lambda: [said for reason, said in edge.events("most") if reason == "RestartOnDisk"])
    print(f"{before} % of the disk in use before, {used(small_runtime)} % after; {told}")
    assert "Container main is restarted: the node's disk is " in told
    assert f"{percent} % is allowed, and its file system has 100.0 MiB of it." in told
    assert restarts(edge.pod("some")) == 0
    assert "done" in names(edge)

    # Now it fills up for good: what is kept goes, and nobody who runs.
    edge.kubectl("annotate", "pods", "--all", f"{PERCENT}=0", "--overwrite")
    edge.run(pod("more", container(f"{takes(free_mib(small_runtime) - 20)}; {SLEEP}")))
    wait_until(lambda: "done" not in names(edge), 60, what="the kept pod is collected")
    told = wait_until(lambda: [said for reason, said in edge.events("done") if reason == "KeptPodCollected"], 10)[0]
    assert told.endswith(": the disk is short")
    assert [found["status"]["phase"] for found in edge.pods()] == ["Running"] * 3


def free_writer(name: str, mib: int, percent: str) -> Object:
    """Without a limit of its own. Once restarted it writes no more."""
    seen = [{"name": "seen", "mountPath": "/seen"}]
    script = f"[ -e /seen/it ] || {takes(mib)}; touch /seen/it; {SLEEP}"
    volumes = [{"name": "seen", "emptyDir": {}}]
    annotated = {"annotations": {PERCENT: percent}}
    return pod(name, container(script, volumeMounts=seen), metadata=annotated, volumes=volumes)


def names(edge: Edge) -> list[str]:
    """Of the pods that have containers, running or not."""
    return sorted({c["labels"]["io.kubernetes.pod.name"] for c in edge.containers()})


def used(runtime: Containerd) -> float:
    """Percent."""
    return psutil.disk_usage(str(runtime.root)).percent


def free_mib(runtime: Containerd) -> int:
    return int(psutil.disk_usage(str(runtime.root)).free) // 2**20
