"""What piles up on a node is cleared away, and what is used, wanted or somebody else's is not."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.pods.cgroups import CGROUP_FS, CgroupDriver, hierarchies, pod_cgroup_path
from agent.pods.qos import QosClass
from hack import images, oci
from hack.control_plane import ControlPlane
from hack.runtime import Containerd, Generation
from tests.integration.agent.edge import Edge, container, pod, restarts, status_of
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

UNUSED, PINNED, RUNNING, RECORDED, DEAD, FOREIGN = (
    f"docker.io/garbage/{name}:1" for name in ("unused", "pinned", "running", "recorded", "dead", "foreign")
)


def names(runtime: Containerd) -> set[str]:
    """The tags of all images."""
    listed = json.loads(runtime.crictl("images", "--output=json"))["images"]
    return {tag for image in listed for tag in image["repoTags"]}


@pytest.fixture
def held(containerd: Containerd, tmp_path: Path) -> Iterator[Containerd]:
    """A runtime with images of the test's own beside the others', all of which are there again afterwards."""
    base = oci.layer(images.busybox_files())
    made = [
        oci.Image((name,), (base, oci.layer({"name": oci.File(0o644, name.encode())})))
        for name in (UNUSED, PINNED, RUNNING, RECORDED, DEAD, FOREIGN)
    ]
    oci.pack(tmp_path / "images.tar", made)
    containerd.ctr("images", "import", str(tmp_path / "images.tar"))
    containerd.ctr("images", "label", PINNED, "io.cri-containerd.pinned=pinned")
    wait_until(lambda: {UNUSED, PINNED, FOREIGN} <= names(containerd))
    yield containerd
    containerd.remove_all_pods()
    for archive in images.archives():
        containerd.ctr("images", "import", str(archive))
    for name in names(containerd):
        if name.startswith("docker.io/garbage/"):
            containerd.crictl("rmi", name)
    wait_until(lambda: {images.BUSYBOX, images.PAUSE} <= names(containerd))


def foreign_container(edge: Edge, folder: Path) -> None:
    """A container that carries no label of the agent's."""
    pod_config = {
        "metadata": {"name": "foreign", "namespace": edge.namespace, "uid": "foreign-uid", "attempt": 0},
        "log_directory": str(folder),
        "linux": {"cgroup_parent": f"{edge.runtime.cgroup}/foreign"},
    }
    container_config = {"metadata": {"name": "main"}, "image": {"image": FOREIGN}, "command": ["sh"], "linux": {}}
    (folder / "pod.json").write_text(json.dumps(pod_config))
    (folder / "container.json").write_text(json.dumps(container_config))
    sandbox = edge.runtime.crictl("runp", str(folder / "pod.json")).strip()
    edge.runtime.crictl("create", sandbox, str(folder / "container.json"), str(folder / "pod.json"))


def test_a_full_disk_loses_the_images_that_nothing_uses_and_no_other(
    held: Containerd, agent: AgentFactory, control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("{}")
    edge = Edge(agent(flags=[f"--config={settings}"]), held, control_plane, namespace)
    never = {"imagePullPolicy": "Never"}
    waits = {**container("sleep 3600"), "image": images.BUSYBOX, "name": "waits"}
    edge.run(
        pod("running", {**container(), "image": RUNNING, **never}),
        # Its own container is not made before the one that waits has ended.
        pod("recorded", {**container(), "image": RECORDED.removeprefix("docker.io/"), **never}, initContainers=[waits]),
        pod("dead", {**container("true"), "image": DEAD, **never}, restartPolicy="Never"),
    )
    edge.wait_ready("running")
    edge.wait_phase("dead", "Succeeded")
    wait_until(lambda: status_of(edge.pod("recorded"), "waits")["state"].get("running"))
    foreign_container(edge, tmp_path)
    assert UNUSED in names(held)

    # As if the disk were full: from 1 % on, down to nothing.
    edge.agent.terminate()
    limits = {"imageGCHighThresholdPercent": 1, "imageGCLowThresholdPercent": 0, "imageMinimumGCAge": "0s"}
    settings.write_text(json.dumps(limits))
    edge.agent.start()
    wait_until(lambda: UNUSED not in names(held))
    told = wait_until(lambda: [m for r, m in edge.node_events() if r == "FreeDiskSpaceFailed"])
    assert "Insufficient free disk space on the node's image filesystem" in told[0]
    kept = {RUNNING, RECORDED, DEAD, FOREIGN, images.BUSYBOX, images.PAUSE}
    if held.generation is Generation.BUILT:  # 1.6 knows no pins
        kept.add(PINNED)
    assert kept <= names(held)
    edge.wait_ready("running")


def test_a_chatty_containers_log_is_rotated_and_no_line_is_lost(
    one_containerd: Containerd, agent: AgentFactory, control_plane: ControlPlane, namespace: str
) -> None:
    flags = ["--container-log-max-size=16Ki", "--container-log-max-files=5", "--container-log-monitor-interval=500ms"]
    edge = Edge(agent(flags=flags), one_containerd, control_plane, namespace)
    talks = (
        "n=0; while :; do for i in 1 2 3 4 5 6 7 8 9 10; do n=$((n+1)); echo line $n of many; done; sleep 0.01; done"
    )
    edge.run(pod("talks", container(talks), terminationGracePeriodSeconds=0), pod("silent"))
    edge.wait_ready("talks", "silent")
    (folder,) = edge.agent.pod_logs_dir.glob(f"{namespace}_talks_*/main")

    def packed() -> list[Path]:
        there = sorted(folder.glob("0.log.*"))
        assert len(there) <= 4
        done = [path for path in there if path.suffix == ".gz"]
        return done if len(done) == 3 else []

    wait_until(packed, 60)
    wait_until(lambda: edge.log("talks", "--tail=1").startswith("line "))
    (link,) = edge.agent.container_log_links_dir.glob(f"talks_{namespace}_main-*.log")
    assert link.resolve() == folder / "0.log"
    (running,) = [c for c in edge.containers() if c["labels"]["io.kubernetes.pod.name"] == "talks"]
    edge.agent.terminate()  # nothing is renamed while it is read
    edge.runtime.crictl("stop", "--timeout=0", running["id"])
    texts = [
        gzip.decompress(p.read_bytes()) if p.suffix == ".gz" else p.read_bytes()
        for p in (*sorted(folder.glob("0.log.*")), folder / "0.log")
    ]
    lines = [int(line.split()[4]) for line in b"".join(texts).splitlines()]
    assert lines == list(range(lines[0], lines[-1] + 1))
    assert not list(folder.glob("*.tmp"))
    (quiet,) = edge.agent.pod_logs_dir.glob(f"{namespace}_silent_*/main")
    assert [path.name for path in quiet.iterdir()] == ["0.log"]


def test_after_three_crashes_the_last_two_runs_are_left_with_their_logs(guest: Edge) -> None:
    """And none before them; while it waits for its next start, the last is what `--previous` shows."""
    script = "n=$(cat /seen/n 2>/dev/null || echo 0); echo $((n+1)) >/seen/n; echo run $n; exit 1"
    mounted = container(script, volumeMounts=[{"name": "seen", "mountPath": "/seen"}])
    guest.run(pod("crashes", mounted, volumes=[{"name": "seen", "emptyDir": {}}]))
    wait_until(lambda: restarts(guest.pod("crashes")) == 2 and guest.log("crashes") == "run 2\n", 60)
    wait_until(lambda: guest.log("crashes", "--previous") == "run 2\n")
    (folder,) = guest.agent.pod_logs_dir.glob(f"{guest.namespace}_crashes_*/main")

    def left() -> tuple[list[int], list[str], int]:
        attempts = sorted(c["metadata"]["attempt"] for c in guest.containers())
        links = list(guest.agent.container_log_links_dir.glob(f"crashes_{guest.namespace}_main-*.log"))
        return attempts, sorted(path.name for path in folder.iterdir()), len(links)

    wait_until(lambda: left() == ([1, 2], ["1.log", "2.log"], 2))


def cgroups(edge: Edge, uid: str, qos: QosClass = QosClass.BEST_EFFORT) -> list[Path]:
    path = pod_cgroup_path(uid, qos, CgroupDriver.CGROUPFS, edge.runtime.cgroup)
    return [top / path for top in hierarchies(CGROUP_FS) if (top / path).is_dir()]


def test_a_finished_pod_gives_its_cgroup_back_and_keeps_its_log(guest: Edge) -> None:
    guest.run(pod("job", container("echo done"), restartPolicy="Never"))
    uid = guest.wait_phase("job", "Succeeded")["metadata"]["uid"]
    wait_until(lambda: not cgroups(guest, uid))
    assert guest.log("job") == "done\n"
    (sandbox,) = guest.sandboxes()
    assert sandbox["state"] == "SANDBOX_NOTREADY"


def is_removed(folder: Path) -> bool:
    folder.rmdir()
    return True


def test_traces_of_pods_that_nobody_knows_go_and_those_of_others_stay(
    one_containerd: Containerd, agent: AgentFactory, control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    edge = Edge(agent(flags=["--full-resync-period=1s"]), one_containerd, control_plane, namespace)
    edge.run(pod("stays"))
    edge.wait_ready("stays")
    edge.agent.kill9()
    logs, links = edge.agent.pod_logs_dir, edge.agent.container_log_links_dir
    gone = logs / f"{namespace}_gone_gone-uid" / "main"
    gone.mkdir(parents=True)
    (gone / "0.log").write_text("text")
    (links / f"gone_{namespace}_main-0.log").symlink_to(gone / "0.log")
    (links / f"stale_{namespace}_main-1.log").symlink_to(logs / "none" / "0.log")
    (links / "others.log").symlink_to(tmp_path / "others.log")
    (logs / "not a pod").mkdir()
    mounted = logs / f"{namespace}_mounted_mounted-uid"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mounted], check=True)
    (mounted / "precious").touch()
    path = pod_cgroup_path("gone-uid", QosClass.BURSTABLE, CgroupDriver.CGROUPFS, edge.runtime.cgroup)
    for top in hierarchies(CGROUP_FS):
        (top / path / "child").mkdir(parents=True, exist_ok=True)
    busy = hierarchies(CGROUP_FS)[0] / pod_cgroup_path(
        "busy-uid", QosClass.BEST_EFFORT, CgroupDriver.CGROUPFS, edge.runtime.cgroup
    )
    busy.mkdir(parents=True)
    sleeper = subprocess.Popen(["sleep", "600"])
    (busy / "cgroup.procs").write_text(str(sleeper.pid))
    try:
        edge.agent.start()
        wait_until(lambda: not gone.parent.exists() and not cgroups(edge, "gone-uid", QosClass.BURSTABLE))
        assert not (links / f"gone_{namespace}_main-0.log").is_symlink()
        wait_until(lambda: "the cgroup of pod busy-uid has processes" in edge.agent_log())
        wait_until(lambda: "mounted-uid" in edge.agent_log())
        assert (mounted / "precious").exists()
        assert (logs / "not a pod").is_dir()
        assert (links / "others.log").is_symlink()
        assert sleeper.poll() is None
        edge.wait_ready("stays")
        assert restarts(edge.pod("stays")) == 0
        assert len(list(links.glob(f"stays_{namespace}_*.log"))) == 1
    finally:
        edge.agent.stop()
        subprocess.run(["umount", mounted], check=True)
        sleeper.kill()
        sleeper.wait()
        wait_until(lambda: is_removed(busy))
