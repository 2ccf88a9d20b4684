"""`edgelet.io/restart-on-disk`: a container that fills its disk is started anew, counted and said."""

from __future__ import annotations

from tests.integration.agent.edge import SLEEP, Edge, Object, container, pod, restarts, status_of
from tests.integration.support.waiting import wait_until

PERCENT = "edgelet.io/restart-on-disk"
LIMITED = {"limits": {"ephemeral-storage": "64Mi"}}


def writer(name: str, mib: int, percent: str = "50", **spec: object) -> Object:
    """It writes once: what it finds of an earlier run it says."""
    script = f"ls /filled 2>/dev/null; dd if=/dev/zero of=/filled bs=1M count={mib} 2>/dev/null; echo wrote; {SLEEP}"
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
    assert "RestartOnDisk" in [reason for reason, _ in edge.events("fills")]
    told = [said for reason, said in edge.events("fills") if reason == "RestartOnDisk"]
    assert told[0].startswith("Container main is restarted: its file system has 40.0 MiB, 63 %")
    # Its file system is another, and of the old one nothing is left.
    assert edge.log("fills") == "wrote\n"
    own = [c for c in edge.containers() if c["labels"]["io.kubernetes.pod.name"] == "fills"]
    assert len(own) == 1
    assert ended["containerID"].removeprefix("containerd://") not in edge.runtime.ctr("snapshots", "ls")

    # A changed annotation holds for what runs.
    edge.kubectl("annotate", "pod/modest", f"{PERCENT}=10", "--overwrite")
    wait_until(lambda: restarts(edge.pod("modest")) >= 1, 60, what="restarted by the new value")
    assert restarts(edge.pod("never")) == 0
    assert edge.pod("fills")["status"]["phase"] == "Running"
