"""What a bash pod does on the host, and what Kubernetes shows of it."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from hack.paths import REPOSITORY
from hack.runtime import Containerd
from tests.integration.agent.edge import Edge, pod, restarts, status_of
from tests.integration.conftest import AgentFactory
from tests.integration.scripts.conftest import Marked, allowing, script
from tests.integration.support.waiting import wait_until


def test_both_shapes_run_and_the_logs_of_the_script_stream_while_it_runs(every_edge: Edge) -> None:
    edge = every_edge
    slow = 'for i in 1 2 3 4 5 6; do echo "tick $i"; sleep 1; done; echo "that was all"; exit 3'
    edge.run(pod("ordinary"), script("ticking", slow, restartPolicy="Never"))
    edge.wait_ready("ordinary", "ticking")
    first = wait_until(lambda: edge.log("ticking"))
    assert "tick 1" in first
    assert "that was all" not in first
    assert "tick 6\nthat was all" in edge.log("ticking", "--follow")
    ended = status_of(edge.wait_phase("ticking", "Failed"))["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (3, "Error")
    assert ended["message"].endswith("tick 6\nthat was all\n")


def test_a_script_that_fails_runs_again_until_it_succeeds(edge: Edge, tmp_path: Path) -> None:
    edge.run(
        script("twice", f"echo run >>{tmp_path}/runs; [ $(wc -l <{tmp_path}/runs) -ge 2 ]", restartPolicy="OnFailure")
    )
    found = edge.wait_phase("twice", "Succeeded")
    assert restarts(found) == 1
    assert status_of(found)["lastState"] == {} or status_of(found)["lastState"]["terminated"]["exitCode"] == 1
    time.sleep(2)
    assert (tmp_path / "runs").read_text() == "run\nrun\n"


def test_it_is_a_process_of_the_host_with_its_pods_volumes_and_environment(every_edge: Edge, tmp_path: Path) -> None:
    edge = every_edge
    edge.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"greeting": "hello"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"key": "sesame"}},
    )
    below_etc = f"/etc/edgelet-{tmp_path.name}"
    facts = f"""
      readlink /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/ipc
      cat /settings/greeting {below_etc}/deeper/greeting /settings-file; echo
      cat /secret/key; echo "$FROM_KEY $PLAIN"
      echo scratch >/scratch/file && cat /scratch/file
      pwd; id -u; id -g
      wc -c </var/run/secrets/kubernetes.io/serviceaccount/token
      echo "it was here" >{tmp_path}/trace
      cat {tmp_path}/of-the-host
      sleep 3
    """
    (tmp_path / "of-the-host").write_text("host file\n")
    shutil.chown(tmp_path, 65534, 65534)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o055)
    main = {
        "name": "main",
        "image": "nothing",
        "args": [facts],
        "workingDir": str(tmp_path),
        "env": [
            {"name": "FROM_KEY", "valueFrom": {"secretKeyRef": {"name": "key", "key": "key"}}},
            {"name": "PLAIN", "value": "plain"},
        ],
        "volumeMounts": [
            {"name": "settings", "mountPath": "/settings"},
            {"name": "settings", "mountPath": f"{below_etc}/deeper"},
            {"name": "settings", "mountPath": "/settings-file", "subPath": "greeting"},
            {"name": "secret", "mountPath": "/secret"},
            {"name": "scratch", "mountPath": "/scratch"},
        ],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    edge.run(
        script(
            "facts",
            restartPolicy="Never",
            automountServiceAccountToken=True,
            securityContext={"runAsUser": 65534, "fsGroup": 65534},
            containers=[main],
            volumes=[
                {"name": "settings", "configMap": {"name": "settings"}},
                {"name": "secret", "secret": {"secretName": "key", "defaultMode": 0o440}},
                {"name": "scratch", "emptyDir": {}},
            ],
        )
    )
    wait_until(lambda: (tmp_path / "trace").exists())
    assert Path(below_etc).is_dir()
    assert list(Path(below_etc).rglob("greeting")) == [], "its mounts are not the host's"
    edge.wait_phase("facts", "Succeeded")
    *namespaces, greetings, secret, scratch, folder, user, group, token, host = edge.log("facts").splitlines()
    assert namespaces == [os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "pid", "ipc")]
    assert (greetings, secret, scratch) == ("hellohellohello", "sesame" + "sesame plain", "scratch")
    assert (folder, user, group) == (str(tmp_path), "65534", "65534")
    assert int(token) > 100
    assert host == "host file"
    assert (tmp_path / "trace").stat().st_uid == 65534
    edge.delete("pod", "facts")
    edge.wait_gone("facts")
    made = (Path(below_etc), Path("/run/secrets/kubernetes.io/serviceaccount"))
    wait_until(lambda: not any(path.exists() for path in made), what="what was made for its mounts is removed")


def test_exec_probes_and_exec_see_the_host(edge: Edge, tmp_path: Path) -> None:
    probe = {"exec": {"command": ["test", "-e", f"{tmp_path}/ready"]}, "periodSeconds": 1}
    main = {"name": "main", "image": "x", "command": ["sleep", "1000"], "readinessProbe": probe}
    edge.run(script("probed", containers=[main]))
    found = edge.wait_phase("probed", "Running")
    assert status_of(found)["ready"] is False
    (tmp_path / "ready").touch()
    edge.wait_ready("probed")
    container_id = status_of(edge.pod("probed"))["containerID"].rpartition("/")[2]
    assert edge.runtime.crictl("exec", container_id, "cat", "/proc/1/comm") == Path("/proc/1/comm").read_text()


def test_deletion_ends_the_whole_tree_in_time(every_edge: Edge, marked: Marked) -> None:
    edge = every_edge
    tree = """
      trap '' TERM
      (trap '' TERM; sleep 1001) &
      setsid bash -c 'sleep 1002' </dev/null >/dev/null 2>&1 &
      (setsid bash -c 'trap "" TERM; (sleep 1003; true) & sleep 1004' </dev/null >/dev/null 2>&1 &)
      echo grown
      sleep 1005
    """
    grown = script("tree", tree)
    grown["spec"]["containers"][0]["env"] = marked.env
    edge.run(grown)
    wait_until(lambda: len(marked.pids()) >= 7)
    asked = time.monotonic()
    edge.delete("pod", "tree")
    wait_until(lambda: not marked.pids(), 10, what="every process gone")
    edge.wait_gone("tree")
    assert time.monotonic() - asked < 5 + 2


def test_a_script_whose_first_process_ends_leaves_nobody_behind(every_edge: Edge, marked: Marked) -> None:
    left = script("left", "(setsid sleep 1001 </dev/null >/dev/null 2>&1 &); sleep 1", restartPolicy="Never")
    left["spec"]["containers"][0]["env"] = marked.env
    every_edge.run(left)
    every_edge.wait_phase("left", "Succeeded")
    wait_until(lambda: not marked.pids(), 5)


def test_a_script_does_not_keep_the_networks_of_ended_pods_alive(every_edge: Edge, marked: Marked) -> None:
    edge = every_edge
    made = script("watching", "sleep 1001")
    made["spec"]["containers"][0]["env"] = marked.env
    edge.run(pod("passing"))
    edge.wait_ready("passing")
    edge.run(made)
    edge.wait_ready("watching")
    (watching, *_) = marked.pids()

    def networks() -> set[str]:
        rows = Path(f"/proc/{watching}/mountinfo").read_text().splitlines()
        return {row.split()[4] for row in rows if "/netns/" in row}

    sandbox = next(one["id"] for one in edge.sandboxes() if one["metadata"]["name"] == "passing")
    info = json.loads(edge.runtime.crictl("inspectp", sandbox))["info"]
    namespaces = info["runtimeSpec"]["linux"]["namespaces"]
    network = next(one["path"] for one in namespaces if one["type"] == "network")
    known = {path for path in networks() if path.endswith(Path(network).name)}
    assert known
    edge.delete("pod", "passing")
    edge.wait_gone("passing")
    wait_until(lambda: not known & networks(), 10)


def test_the_image_is_made_again_when_somebody_removed_it(every_edge: Edge) -> None:
    edge = every_edge
    edge.run(script("before", "echo first", restartPolicy="Never"))
    edge.wait_phase("before", "Succeeded")
    edge.delete("pod", "before")
    edge.wait_gone("before")
    edge.runtime.crictl("rmi", "edgelet.io/host:latest")
    edge.run(script("after", "echo second", restartPolicy="Never"))
    edge.wait_phase("after", "Succeeded")
    assert edge.log("after") == "second\n"


def test_thirty_scripts_survive_ten_kills_of_the_agent_and_end_with_their_pods(
    edge: Edge, marked: Marked, tmp_path: Path
) -> None:
    names = [f"s{number}" for number in range(30)]
    body = f'echo $BASHPID >>{tmp_path}/$NAME; sleep 1001 & setsid sleep 1002 & trap "exit 0" TERM; wait'
    for name in names:
        made = script(name, body)
        made["spec"]["containers"][0]["env"] = [*marked.env, {"name": "NAME", "value": name}]
        edge.run(made)
    for turn in range(10):
        edge.agent.kill9()
        edge.agent.start()
        time.sleep(1.5 if turn < 9 else 0)
    edge.wait_ready(*names, timeout=60)
    runs = {name: (tmp_path / name).read_text().split() for name in names}
    assert len(marked.pids()) == 3 * len(names), "lost or doubled"
    assert {int(pids[-1]) for pids in runs.values()} <= marked.pids()
    # A kill amid StartContainer makes containerd give that start up. Its program may have run for a moment before that
    # or not, and the container counts or not: containerd may have called it started.
    again = {name: restarts(edge.pod(name)) for name in names}
    assert [name for name in names if len(runs[name]) > 2 + again[name]] == []
    assert sum(len(pids) - 1 for pids in runs.values()) <= 10
    assert sum(again.values()) <= 10
    edge.delete("pod", *names)
    wait_until(lambda: not marked.pids(), 5 + 10, what="every process gone")
    edge.wait_gone(timeout=30)
    assert edge.containers() == []


def test_scripts_end_when_the_machines_owner_takes_the_permission_back(
    edge: Edge, agent: AgentFactory, marked: Marked
) -> None:
    made = script("going", "sleep 1001")
    made["spec"]["containers"][0]["env"] = marked.env
    edge.run(made, pod("staying"))
    edge.wait_ready("going", "staying")
    edge.agent.terminate()
    assert marked.pids()
    command = edge.agent.daemon.command
    edge.agent.daemon.command = [word for word in command if not str(word).startswith("--scripts-")]
    edge.agent.start()
    found = edge.wait_phase("going", "Failed")
    assert found["status"]["reason"] == "ScriptsDisabled"
    assert not marked.pids()
    edge.wait_ready("staying")
    assert restarts(edge.pod("staying")) == 0


def test_the_standalone_example_runs(agent: AgentFactory, one_containerd: Containerd, tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    shutil.copy(REPOSITORY / "config" / "manifests" / "script.yaml", folder)
    edge = agent(standalone=True, manifests=folder, flags=allowing("default"), wait=False)

    def said() -> bool:
        ids = one_containerd.crictl("ps", "--quiet", "--name=load").split()
        return bool(ids) and "load " in one_containerd.crictl("logs", ids[0])

    wait_until(said)
    (folder / "script.yaml").unlink()
    wait_until(lambda: not one_containerd.crictl("pods", "--quiet", f"--name=script-{edge.node}").split())
