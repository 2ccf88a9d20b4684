"""Mistakes of the user's: one clear line and exit code 2, or an event on the pod; nobody else is disturbed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hack.paths import REPOSITORY
from tests.integration.agent.edge import Edge, condition, container, container_ids, pod, restarts
from tests.integration.support.waiting import wait_until


def refused(folder: Path, *flags: str, before: Sequence[str] = ()) -> str:
    """The only line of an `edgelet run` that ends with code 2. `before`: a command that runs it."""
    base = [f"--root-dir={folder / 'root'}", "--nodename=mistaken", "--port=0", f"--pod-manifest-path={folder}"]
    done = subprocess.run(
        [*before, sys.executable, "-m", "agent", "run", *base, *flags],
        cwd=folder,
        env={**os.environ, "KUBECONFIG": "", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    # What was logged before it came to the mistake is not the answer.
    told = [line for line in done.stderr.splitlines() if line.startswith("edgelet: ")]
    assert (done.returncode, len(told), done.stdout) == (2, 1, ""), done.stderr
    assert "Traceback" not in done.stderr
    return told[0]


def test_a_kubeconfig_that_is_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path, "--kubeconfig=none.yaml") == "edgelet: --kubeconfig: no such file: none.yaml"


@pytest.mark.parametrize("content", ["", "{}", "not: [yaml", "just text"])
def test_a_kubeconfig_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "kube.yaml").write_text(content)
    assert "kube.yaml" in refused(tmp_path, "--kubeconfig=kube.yaml")


def test_an_unknown_flag(tmp_path: Path) -> None:
    assert "--max-pod" in refused(tmp_path, "--max-pod=3")


def test_a_value_that_makes_no_sense(tmp_path: Path) -> None:
    assert "--max-pods" in refused(tmp_path, "--max-pods=many")


def test_an_unknown_key_in_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "edge.yaml").write_text("maxPod: 5\n")
    told = refused(tmp_path, "--config=edge.yaml")
    assert told == "edgelet: edge.yaml: unknown key 'maxPod'; did you mean 'maxPods'?"


def test_an_unknown_provider(tmp_path: Path) -> None:
    assert "--provider" in refused(tmp_path, "--provider=cloud")


def test_a_runtime_socket_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file.sock").touch()
    endpoint = f"unix://{tmp_path}/file.sock"
    assert f"{endpoint} is a file, not a socket" in refused(tmp_path, f"--container-runtime-endpoint={endpoint}")


def test_a_runtime_socket_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "closed.sock"
    # Root may read everything by a capability, which others have not.
    without = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0)
        told = refused(tmp_path, f"--container-runtime-endpoint=unix://{path}", before=without)
    assert told == f"edgelet: container runtime endpoint unix://{path}: permission denied (run as root)"


IQN = "iqn.2001-04.com.example:storage"


def test_an_impossible_pod_waits_with_an_event_that_names_the_field(edge: Edge) -> None:
    edge.run(pod("good"))
    edge.wait_ready("good")
    before = container_ids(edge.pod("good"))
    edge.run(
        pod("iscsi", volumes=[{"name": "far", "iscsi": {"targetPortal": "192.0.2.1", "iqn": IQN, "lun": 0}}]),
        pod("rbd", volumes=[{"name": "far", "rbd": {"monitors": ["192.0.2.1"], "image": "one"}}]),
    )
    wait_until(lambda: any("spec.volumes[0].iscsi" in message for _, message in edge.events("iscsi")))
    wait_until(lambda: any("spec.volumes[0].rbd" in message for _, message in edge.events("rbd")))
    (event,) = [(reason, message) for reason, message in edge.events("iscsi") if "iscsi" in message]
    assert event[0] == "UnsupportedField"
    wait_until(lambda: edge.pod("iscsi")["status"].get("phase") == "Pending")
    assert condition(edge.pod("iscsi"), "Ready").get("status") != "True"
    assert {one["metadata"]["name"] for one in edge.sandboxes()} == {"good"}
    # It can be deleted as any other.
    edge.delete("pod/iscsi")
    edge.wait_gone("iscsi")
    assert (container_ids(edge.pod("good")), restarts(edge.pod("good"))) == (before, 0)


def test_references_that_are_missing_are_named_and_waited_for(edge: Edge) -> None:
    absent = {"configMapKeyRef": {"name": "later", "key": "word"}}
    edge.run(
        pod("env", container("echo $WORD", env=[{"name": "WORD", "valueFrom": absent}]), restartPolicy="Never"),
        pod("volume", volumes=[{"name": "v", "secret": {"secretName": "later"}}]),
    )
    wait_until(lambda: any("later" in message for _, message in edge.events("env")))
    wait_until(lambda: ("FailedMount" in dict(edge.events("volume"))) and edge.pod("volume")["status"]["phase"])
    meta = {"name": "later"}
    edge.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"word": "here"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"word": "here"}},
    )
    edge.wait_phase("env", "Succeeded", 60)
    assert edge.log("env") == "here\n"
    edge.wait_ready("volume", timeout=60)
