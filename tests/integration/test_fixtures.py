"""The ground that the other integration tests stand on: both runtimes run pods, the control plane is a strict one."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hack.control_plane import ControlPlane
from hack.images import BUSYBOX
from hack.paths import REPOSITORY
from hack.runtime import Containerd
from hack.workspace import Workspace
from tests.integration.support.waiting import wait_until


def run_pod(runtime: Containerd, folder: Path, command: list[str]) -> tuple[str, str]:
    """The IDs of a sandbox and its only, running container."""
    sandbox = {
        "metadata": {"name": "pod", "namespace": "default", "uid": folder.name, "attempt": 0},
        "log_directory": str(folder),
        "linux": {"cgroup_parent": f"{runtime.cgroup}/kubepods/{folder.name}"},
    }
    container = {
        "metadata": {"name": "main", "attempt": 0},
        "image": {"image": BUSYBOX},
        "command": command,
        "log_path": "main.log",
        "linux": {},
    }
    (folder / "sandbox.json").write_text(json.dumps(sandbox))
    (folder / "container.json").write_text(json.dumps(container))
    pod = runtime.crictl("runp", str(folder / "sandbox.json")).strip()
    made = runtime.crictl("create", pod, str(folder / "container.json"), str(folder / "sandbox.json")).strip()
    runtime.crictl("start", made)
    return pod, made


def test_a_pod_runs_with_a_network_of_its_own_and_writes_its_log(containerd: Containerd, tmp_path: Path) -> None:
    pod, _ = run_pod(containerd, tmp_path, ["sh", "-c", "echo hello; exec sleep 1000"])
    network = json.loads(containerd.crictl("inspectp", pod))["status"]["network"]
    assert network["ip"].rpartition(".")[0] == containerd.gateway.rpartition(".")[0]
    wait_until(lambda: "hello" in (tmp_path / "main.log").read_text())
    containerd.crictl("rmp", "--force", pod)


def test_containers_outlive_their_containerd(
    containerd: Containerd, tmp_path: Path, crictl: Callable[..., str]
) -> None:
    pod, container = run_pod(containerd, tmp_path, ["sleep", "1000"])
    containerd.stop()
    with pytest.raises(subprocess.CalledProcessError):
        crictl("ps")
    containerd.start()
    assert container in crictl("ps", "--quiet", "--no-trunc")
    containerd.crictl("rmp", "--force", pod)


def test_the_scheduler_and_the_controllers_are_at_work(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("create", "deployment", "web", f"--image={BUSYBOX}", "--namespace", namespace)

    def is_judged_unschedulable() -> bool:
        pods = json.loads(control_plane.kubectl("get", "pods", "--output=json", "--namespace", namespace))["items"]
        return any(c["reason"] == "Unschedulable" for pod in pods for c in pod["status"]["conditions"])

    wait_until(is_judged_unschedulable)


def test_a_node_may_not_list_secrets_nor_register_another_node(control_plane: ControlPlane, tmp_path: Path) -> None:
    edge = control_plane.node_kubeconfig("edge")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        control_plane.kubectl("get", "secrets", "--all-namespaces", kubeconfig=edge)
    assert "Forbidden" in refused.value.stderr
    other = json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "other"}})
    with pytest.raises(subprocess.CalledProcessError) as refused:
        control_plane.kubectl("create", "--filename=-", kubeconfig=edge, stdin=other)
    assert 'node "edge" is not allowed to modify node "other"' in refused.value.stderr


def test_the_api_server_comes_back_on_the_same_address_with_its_objects(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "configmap", "kept")
    control_plane.cut_off()
    with pytest.raises(subprocess.CalledProcessError):
        control_plane.kubectl("get", "configmap", "kept")
    control_plane.reconnect()
    control_plane.kubectl("delete", "configmap", "kept")


def test_what_a_killed_run_left_behind_is_cleared_by_the_next(tmp_path: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    folder, bridge, container = run.stdout.readline().split()
    run.kill()
    run.wait()
    assert Path("/sys/class/net", bridge).exists()
    assert mounts_below(folder)

    held = [Workspace()]
    while str(held[-1].folder) != folder:  # lower numbers may be free by now, too
        held.append(Workspace())
    assert not Path("/sys/class/net", bridge).exists()
    assert not mounts_below(folder)
    assert list(Path(folder).iterdir()) == []
    wait_until(lambda: not processes_of(container), timeout=5)  # init may take a moment to reap it
    for workspace in held:
        workspace.release()


KILLED_RUN = """
import sys, time
from pathlib import Path
from hack.runtime import Containerd, Generation
from hack.workspace import Workspace
from tests.integration.test_fixtures import run_pod

workspace = Workspace()
runtime = Containerd(workspace, Generation.DISTRIBUTION)
runtime.start()
_, container = run_pod(runtime, Path(sys.argv[1]), ["sleep", "1000"])
print(workspace.folder, runtime.bridge, container, flush=True)
time.sleep(1000)
"""


def mounts_below(folder: str) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {folder}/" in line]


def processes_of(container: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if container in (process / "cgroup").read_text():
                found.append(process.name)
    return found
