"""One node's thresholds set from the cluster, images that fill their disk, and a machine that pods share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from agent.model import quantity
from agent.pods.cgroups import CgroupDriver, kubepods_path
from agent.stats.cgroups import Cgroups
from hack import oci
from hack.control_plane import ControlPlane
from hack.runtime import Containerd
from tests.integration.agent.conftest import IMAGES_MIB
from tests.integration.agent.edge import Edge, container, pod, restarts
from tests.integration.agent.test_eviction import GUARANTEED, PODS_MIB, evicted
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

MIB = 2**20
TRANSITION_S = 3
HARD = "edgelet.io/eviction-hard"
EATEN_MIB = 200


def annotate(edge: Edge, *annotations: str) -> None:
    edge.kubectl("annotate", "node", edge.node, "--overwrite", *annotations)


def allocatable(edge: Edge, name: str = "memory") -> int:
    """MiB."""
    return int(quantity.parse(edge.agent.node_object()["status"]["allocatable"][name])) // MIB


def test_thresholds_of_a_node_are_set_by_its_annotations_without_a_restart_and_hold_while_cut_off(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str
) -> None:
    reserved = psutil.virtual_memory().total // MIB - PODS_MIB
    flags = [
        f"--system-reserved=memory={reserved}Mi",
        "--eviction-hard=memory.available<50Mi",
        f"--eviction-pressure-transition-period={TRANSITION_S}s",
    ]
    edge = Edge(agent(flags=flags), one_containerd, control_plane, namespace)
    pid, before = edge.agent.pid, allocatable(edge)
    cache = [{"name": "cache", "emptyDir": {}}]
    eats = f"until [ -e /cache/now ]; do sleep 0.2; done; dd if=/dev/zero bs={EATEN_MIB}M count=1 | sleep 3600"
    eater = container(eats, volumeMounts=[{"name": "cache", "mountPath": "/cache"}])
    edge.run(pod("kept", container(resources=GUARANTEED)), *(pod(name, eater, volumes=cache) for name in ("a", "b")))
    edge.wait_ready("kept", "a", "b")

    def let_eat(name: str, uid: str) -> None:
        (volume,) = (edge.agent.root_dir / "pods" / uid / "volumes").glob("*/cache")
        (volume / "now").touch()

    a, b = (edge.pod(name)["metadata"]["uid"] for name in ("a", "b"))
    let_eat("a", a)
    used = pods_working_set(edge)
    wait_until(lambda: used() > EATEN_MIB * 3 // 4, what="the eater has eaten")

    annotate(edge, f"{HARD}=memory.available<much")
    fault = f"annotation {HARD}='memory.available<much' does not count: not a resource quantity: 'much'"
    wait_until(lambda: ("InvalidPolicy", fault) in edge.node_events(), what="the fault is said")
    assert allocatable(edge) == before
    assert edge.pod("a")["status"]["phase"] == "Running"

    annotate(edge, f"{HARD}=memory.available<{PODS_MIB - EATEN_MIB + 50}Mi")
    gone = evicted(edge, "a", 20)
    assert f"Threshold quantity: {PODS_MIB - EATEN_MIB + 50}Mi" in gone["status"]["message"]
    wait_until(lambda: allocatable(edge) == before - (PODS_MIB - EATEN_MIB), 10, what="allocatable follows")
    wait_until(lambda: edge.agent.condition("MemoryPressure")["status"] == "False", 30 + TRANSITION_S)
    assert (edge.agent.pid, restarts(edge.pod("kept"))) == (pid, 0)

    control_plane.cut_off()
    edge.agent.kill9()
    said = len(edge.agent_log())
    edge.agent.start()
    read = f"policies by annotations of the Node: {HARD}"
    wait_until(lambda: read in edge.agent_log()[said:], what="the record is read")
    let_eat("b", b)
    wait_until(lambda: not list((edge.agent.root_dir / "pods" / b).glob("volumes/*/cache")), 40, what="b goes")
    control_plane.reconnect()
    evicted(edge, "b", 60)

    annotate(edge, f"{HARD}-")
    wait_until(lambda: allocatable(edge) == before, 30, what="without the annotation the setting holds")
    edge.wait_ready("kept")
    assert restarts(edge.pod("kept")) == 0


def pods_working_set(edge: Edge) -> Callable[[], int]:
    """MiB of memory that all pods of the node use; asked of the kernel."""
    path, groups = kubepods_path(CgroupDriver.CGROUPFS, edge.runtime.cgroup), Cgroups()

    def used() -> int:
        found = groups.memory(path)
        return 0 if found is None else found.working_set_bytes // MIB

    return used


# ---------------------------------------------------------------- images that fill their disk


def bulk(index: int) -> str:
    return f"docker.io/bulk/{index}:1"


def bulk_here(runtime: Containerd) -> set[str]:
    listed = json.loads(runtime.crictl("images", "--output=json"))["images"]
    return {tag for image in listed for tag in image["repoTags"] if "/bulk/" in tag}


def pull_bulk(runtime: Containerd, folder: Path, count: int) -> None:
    """Each a tenth of the disk, packed and unpacked: nothing compresses them; as if pulled for pods of before."""
    for index in range(count):
        content = oci.layer({"blob": oci.File(0o644, os.urandom(IMAGES_MIB * MIB // 20))})
        oci.pack(folder / "bulk.tar", [oci.Image((bulk(index),), (content,))])
        runtime.ctr("images", "import", str(folder / "bulk.tar"))
        (folder / "bulk.tar").unlink()


def used_percent(runtime: Containerd) -> int:
    return int(psutil.disk_usage(str(runtime.root)).percent)


def test_unused_images_go_when_they_fill_their_disk_and_no_pod_does(
    small_runtime: Containerd, agent: AgentFactory, control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    flags = [
        "--eviction-hard=imagefs.available<30%",
        f"--eviction-pressure-transition-period={TRANSITION_S}s",
        "--minimum-image-ttl-duration=0s",
        "--image-gc-high-threshold=100",
    ]
    edge = Edge(agent(flags=flags, runtime=small_runtime), small_runtime, control_plane, namespace)
    edge.run(pod("kept"), pod("busy", container("while :; do date > /file; sleep 0.2; done")))
    edge.wait_ready("kept", "busy")
    pull_bulk(small_runtime, tmp_path, 7)
    full = used_percent(small_runtime)
    assert full > 70

    wait_until(lambda: edge.agent.condition("DiskPressure")["status"] == "True", 30, what="DiskPressure")
    wait_until(lambda: not bulk_here(small_runtime), 30, what="unused images go")
    wait_until(lambda: edge.agent.condition("DiskPressure")["status"] == "False", 60, what="no DiskPressure")
    print(f"{full} % of the images' disk in use before, {used_percent(small_runtime)} % after")
    assert used_percent(small_runtime) < 70
    told = dict(edge.node_events())
    assert {"EvictionThresholdMet", "NodeHasDiskPressure", "NodeHasNoDiskPressure"} <= told.keys()
    assert told["EvictionThresholdMet"] == "Attempting to reclaim ephemeral-storage"
    edge.wait_ready("kept", "busy")
    assert [restarts(edge.pod(name)) for name in ("kept", "busy")] == [0, 0]
    assert not [reason for name in ("kept", "busy") for reason, _ in edge.events(name) if reason == "Evicted"]
    edge.run(pod("after"))
    edge.wait_ready("after")


def test_thresholds_of_images_are_the_nodes_annotations_and_what_they_cannot_free_is_said(
    small_runtime: Containerd, agent: AgentFactory, control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    flags = ["--eviction-hard=memory.available<50Mi", "--image-gc-high-threshold=100"]
    edge = Edge(agent(flags=flags, runtime=small_runtime), small_runtime, control_plane, namespace)
    edge.run(pod("kept"))
    edge.wait_ready("kept")
    pull_bulk(small_runtime, tmp_path, 5)
    pid, before = edge.agent.pid, used_percent(small_runtime)
    assert before > 50
    assert len(bulk_here(small_runtime)) == 5

    prefix = "edgelet.io/image-gc"
    annotate(edge, f"{prefix}-high-threshold=50", f"{prefix}-low-threshold=45", "edgelet.io/minimum-image-ttl=0s")
    # An image's size is that of what was pulled; unpacked it takes as much again.
    wait_until(lambda: used_percent(small_runtime) <= 45, 30, what="down to the low threshold")
    left = bulk_here(small_runtime)
    assert 0 < len(left) < 5, left

    # What is no image: the collector can do nothing about it, and says so.
    with (small_runtime.root / "somebody's").open("wb") as file:
        file.write(bytes(IMAGES_MIB * MIB * 6 // 10))
    annotate(edge, f"{prefix}-high-threshold=47")
    wait_until(lambda: not bulk_here(small_runtime), 30)
    told = wait_until(lambda: [m for r, m in edge.node_events() if r == "FreeDiskSpaceFailed"])
    assert "Failed to free sufficient space by deleting unused images" in told[0]
    annotate(edge, f"{prefix}-high-threshold=46")
    wait_until(lambda: "ImageGCFailed" in dict(edge.node_events()), what="said once it has failed again")

    annotate(edge, f"{prefix}-high-threshold=30")
    fault = f"annotation {prefix}-high-threshold='30' does not count: "
    wait_until(lambda: [m for r, m in edge.node_events() if r == "InvalidPolicy" and m.startswith(fault)])
    edge.wait_ready("kept")
    assert (edge.agent.pid, restarts(edge.pod("kept"))) == (pid, 0)


# ---------------------------------------------------------------- a shared machine


@contextmanager
def hog(mib: int) -> Iterator[None]:
    """A program beside the pods that holds so much memory."""
    held = f"import sys; held = b'x' * ({mib} << 20); print(len(held), flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", held], **pipes)  # type: ignore[call-overload]
    try:
        assert process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()


def test_allocatable_follows_what_other_programs_use(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str
) -> None:
    # What else goes on here comes and goes, by less than half of what the test's own program takes.
    eaten, flags = psutil.virtual_memory().total // MIB // 4, ["--live-capacity"]
    edge = Edge(agent(flags=flags), one_containerd, control_plane, namespace)
    usual = allocatable(edge)
    edge.run(pod("here", container(resources={"requests": {"memory": f"{usual // 4}Mi"}})))
    edge.wait_ready("here")
    with hog(eaten):
        wait_until(lambda: allocatable(edge) < usual - eaten, 90, 1, what="allocatable shrinks")
        less = allocatable(edge)
        print(f"{less} of {usual} MiB are allocatable while others hold {eaten} MiB more")
        assert less >= usual // 4
        edge.run(pod("large", container(resources={"requests": {"memory": f"{usual * 3 // 4 - eaten // 8}Mi"}})))
        large = edge.wait_phase("large", "Failed")
        assert large["status"]["reason"] == "OutOfmemory"
        edge.run(pod("small", container(resources={"requests": {"memory": "16Mi"}})))
        edge.wait_ready("small", "here")
        # A restart begins where the agent before it was.
        edge.agent.kill9()
        edge.agent.start()
        edge.agent.wait_ready()
        assert allocatable(edge) < usual - eaten // 2
    back = wait_until(
        lambda: (now := allocatable(edge)) > less + eaten // 2 and now, 200, 1, what="allocatable is back"
    )
    print(f"{back} MiB once they are gone")
    told = [message for reason, message in edge.node_events() if reason == "AllocatableChanged"]
    assert len(told) >= 2
    assert all(message.startswith("Allocatable follows what other programs use: cpu ") for message in told)
    edge.wait_ready("here", "small")
    assert restarts(edge.pod("here")) == 0
