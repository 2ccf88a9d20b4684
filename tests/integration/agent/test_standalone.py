"""An agent without a cluster: a folder of manifests is what runs."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import yaml

from hack.agent import Agent
from hack.paths import REPOSITORY
from hack.runtime import Containerd
from tests.integration.agent.edge import container, pod
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

FOLLOWS_S = 2.0
"""A pod follows its file within a second; a busy machine gets another one to start the container."""


def containers(runtime: Containerd, *flags: str) -> dict[str, dict[str, Any]]:
    """Running ones by pod and name."""
    listed = json.loads(runtime.crictl("ps", "--output=json", *flags))["containers"]
    return {f"{c['labels']['io.kubernetes.pod.name']}/{c['metadata']['name']}": c for c in listed}


def pod_names(runtime: Containerd) -> set[str]:
    return {p["metadata"]["name"] for p in json.loads(runtime.crictl("pods", "--output=json"))["items"]}


def write(folder: Path, name: str, *pods: dict[str, Any]) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump_all(pods))
    return file


def interrupt(process: Agent) -> int:
    """Ctrl-C."""
    process.daemon.signal(signal.SIGINT)
    return process.daemon.wait(15)


def test_the_example_pods_run_and_a_second_agent_adopts_their_containers(
    agent: AgentFactory, containerd: Containerd, manifests: Path
) -> None:
    shutil.copytree(REPOSITORY / "config" / "manifests", manifests, dirs_exist_ok=True)
    first = agent(standalone=True, manifests=manifests, wait=False)
    name = f"hello-{first.node}"
    both = {f"{name}/reader", f"{name}/writer"}
    before = wait_until(lambda: (found := containers(containerd)).keys() == both and found)
    assert containerd.crictl("pods", "--quiet", "--name", name).strip()
    # The init container wrote what the main container reads, and the sidecar shows what that one writes.
    wait_until(
        lambda: "hello from a pod without a cluster" in containerd.crictl("logs", before[f"{name}/reader"]["id"])
    )

    assert interrupt(first) == 0
    assert {c["id"] for c in containers(containerd).values()} == {c["id"] for c in before.values()}

    first.start()
    added = write(manifests, "added", pod("added", container()))
    wait_until(lambda: f"added-{first.node}/main" in containers(containerd))
    added.unlink()
    wait_until(lambda: pod_names(containerd) == {name})
    # By now the second agent has read the folder, and would have changed what it does not recognize.
    after = containers(containerd, "--all")
    assert {after[key]["id"] for key in both} == {c["id"] for c in before.values()}
    assert all(c["metadata"]["attempt"] == 0 for c in after.values())


def test_pods_follow_their_files(agent: AgentFactory, one_containerd: Containerd, manifests: Path) -> None:
    write(manifests, "kept", pod("kept"))
    edge = agent(standalone=True, manifests=manifests, wait=False)
    kept = f"kept-{edge.node}/main"
    kept_id = wait_until(lambda: containers(one_containerd)[kept]["id"])

    followed = f"followed-{edge.node}/main"
    file = write(manifests, "followed", pod("followed"))
    first = wait_until(lambda: containers(one_containerd)[followed]["id"], FOLLOWS_S)

    write(manifests, "followed", pod("followed", container(env=[{"name": "CHANGED", "value": "yes"}])))

    def replacement() -> str:
        found: str = containers(one_containerd)[followed]["id"]
        return "" if found == first else found

    second = wait_until(replacement, FOLLOWS_S + 1)
    assert "CHANGED=yes" in one_containerd.crictl("exec", second, "env")

    file.unlink()
    wait_until(lambda: pod_names(one_containerd) == {f"kept-{edge.node}"}, FOLLOWS_S)
    assert containers(one_containerd)[kept]["id"] == kept_id


def test_a_malformed_manifest_is_told_once_in_one_line_and_disturbs_nobody(
    agent: AgentFactory, one_containerd: Containerd, manifests: Path
) -> None:
    write(manifests, "good", pod("good"))
    bad = manifests / "bad.yaml"
    bad.write_text("kind: Pod\n  oops: [\n")
    unknown = write(manifests, "unknown", pod("unknown", container(livenesProbe={"exec": {"command": ["true"]}})))
    edge = agent(standalone=True, manifests=manifests, wait=False)
    wait_until(lambda: f"good-{edge.node}/main" in containers(one_containerd))

    def lines(file: Path) -> list[str]:
        return [line for line in edge.log.read_text().splitlines() if str(file) in line]

    (told,) = wait_until(lambda: lines(bad))
    assert "line 2: not YAML" in told
    (told,) = wait_until(lambda: lines(unknown))
    assert "spec.containers[0].livenesProbe" in told

    good = containers(one_containerd)[f"good-{edge.node}/main"]["id"]
    write(manifests, "bad", pod("bad"))
    wait_until(lambda: f"bad-{edge.node}/main" in containers(one_containerd), FOLLOWS_S)
    running = containers(one_containerd)[f"bad-{edge.node}/main"]["id"]
    bad.write_text("kind: Pod\n  oops: [\n")
    (_, told) = wait_until(lambda: len(found := lines(bad)) > 1 and found)
    assert "its last good pods stay" in told
    found = containers(one_containerd)
    assert (found[f"good-{edge.node}/main"]["id"], found[f"bad-{edge.node}/main"]["id"]) == (good, running)
    assert "Traceback" not in edge.log.read_text()


def test_a_pod_of_a_manifest_that_dies_while_no_agent_is_there_is_started_again(
    agent: AgentFactory, one_containerd: Containerd, manifests: Path
) -> None:
    write(manifests, "here", pod("here"))
    write(manifests, "gone", pod("gone"))
    edge = agent(standalone=True, manifests=manifests, wait=False)
    here, gone = f"here-{edge.node}/main", f"gone-{edge.node}"
    first = wait_until(lambda: f"{gone}/main" in (found := containers(one_containerd)) and found[here]["id"])
    edge.kill9()
    one_containerd.crictl("stop", "--timeout=0", first)
    (manifests / "gone.yaml").unlink()

    edge.start()
    again = wait_until(lambda: containers(one_containerd)[here])
    assert (again["id"] != first, again["metadata"]["attempt"]) == (True, 1)
    wait_until(lambda: gone not in pod_names(one_containerd))
