"""Pods on a node without a network: the agent starts again, the machine loses power, and pods go on as they should."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.integration.agent.edge import SLEEP, Object, container, container_ids, is_ready, pod, restarts
from tests.integration.autonomy.conftest import Outpost, put_static
from tests.integration.autonomy.relay import Cut
from tests.integration.support.waiting import wait_until


def running(outpost: Outpost) -> dict[str, Object]:
    """Running containers by pod and name."""
    return {
        f"{c['labels']['io.kubernetes.pod.name']}/{c['metadata']['name']}": c
        for c in outpost.containers()
        if c["state"] == "CONTAINER_RUNNING"
    }


def made_so_far(outpost: Outpost) -> set[str]:
    """Pod, container and attempt of all that the runtime has."""
    return {
        f"{c['labels']['io.kubernetes.pod.name']}/{c['metadata']['name']}/{c['metadata']['attempt']}"
        for c in outpost.containers()
    }


def output(outpost: Outpost, container_id: str, *command: str) -> str:
    return outpost.runtime.crictl("exec", container_id, *command)


@pytest.mark.parametrize("how", list(Cut))
def test_an_agent_that_starts_again_while_cut_off_manages_its_pods_as_before(
    outpost: Outpost, manifests: Path, tmp_path: Path, how: Cut
) -> None:
    tmp_path.chmod(0o777)
    shared = [{"name": "shared", "hostPath": {"path": str(tmp_path)}}]
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    alive = {
        "exec": {"command": ["test", "!", "-e", "/shared/ill"]},
        "initialDelaySeconds": 8,  # time for the test to see the restart and to heal before the next probe
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo started >>/shared/hooks"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stopped >>/shared/hooks"]}},
    }
    watched = container(livenessProbe=alive, volumeMounts=mounts, lifecycle=hooks)
    static = f"static-{outpost.node}"
    put_static(outpost, manifests, "static")
    outpost.run(
        pod("steady", initContainers=[container("exit 0", name="first")]),
        pod("watched", watched, volumes=shared, terminationGracePeriodSeconds=2),
        pod("crashing", container("sleep 1; exit 1")),
        pod("done", container("exit 0"), restartPolicy="Never"),
    )
    outpost.wait_ready("steady", "watched")
    outpost.wait_phase("done", "Succeeded")
    wait_until(lambda: restarts(outpost.pod("crashing")) >= 1 and f"{static}/main" in running(outpost))
    before = running(outpost)
    made = made_so_far(outpost)

    outpost.cut(how)
    outpost.agent.kill9()
    outpost.agent.start()
    tries = [c["metadata"]["attempt"] for c in outpost.containers() if c["metadata"]["name"] == "main"]
    (tmp_path / "ill").touch()
    again = wait_until(
        lambda: (
            (found := running(outpost).get("watched/main")) and found["id"] != before["watched/main"]["id"] and found
        ),
        what="the liveness probe ends the container, and it is started again",
    )
    (tmp_path / "ill").unlink()
    assert again["metadata"]["attempt"] == 1
    wait_until(lambda: (tmp_path / "hooks").read_text().split() == ["started", "stopped", "started"], 5)
    # Nothing else was started, again or at all; what had ended stays so.
    assert {key for key in made_so_far(outpost) - made if not key.startswith("crashing/")} == {"watched/main/1"}
    for name in ("steady/main", f"{static}/main"):
        assert running(outpost)[name]["id"] == before[name]["id"]
    # The backoff of before holds: it is not tried at once again and again by an agent that knows nothing.
    crashed = [c for c in outpost.containers() if c["labels"]["io.kubernetes.pod.name"] == "crashing"]
    assert max(c["metadata"]["attempt"] for c in crashed) <= max(tries) + 1

    outpost.heal()
    wait_until(lambda: restarts(outpost.pod("watched")) == 1 and is_ready(outpost.pod("steady")))
    assert restarts(outpost.pod("steady")) == 0
    assert outpost.pod("done")["status"]["phase"] == "Succeeded"


def test_after_a_power_cut_without_a_network_every_pod_runs_again_in_order_and_static_ones_beside_them(
    outpost: Outpost, manifests: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    outpost.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"mode": "edge"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"key": "sealed"}},
    )
    volumes: list[Object] = [
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "keys", "secret": {"secretName": "keys"}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "order", "hostPath": {"path": str(tmp_path)}},
    ]
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    environment = [
        {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key"}}},
    ]
    script = "trap 'exit 0' TERM; echo main >>/order/order; sleep 3600 & wait"
    first = container("echo first >>/order/order; cp /settings/mode /scratch/mode", name="first", volumeMounts=mounts)
    second = container("sleep 1; echo second >>/order/order", name="second", volumeMounts=mounts)
    main = container(script, volumeMounts=mounts, env=environment)
    outpost.run(pod("whole", main, initContainers=[first, second], volumes=volumes), *(pod(f"n{n}") for n in range(4)))
    put_static(outpost, manifests, "static")
    names = {"whole/main", f"static-{outpost.node}/main", *(f"n{n}/main" for n in range(4))}
    began = time.monotonic()
    wait_until(lambda: running(outpost).keys() == names)
    first_took = time.monotonic() - began
    before = running(outpost)
    outpost.wait_ready("whole")

    outpost.cut(Cut.SILENT)
    outpost.lose_power()
    assert running(outpost) == {}
    (tmp_path / "order").unlink()
    outpost.agent.start()
    began = time.monotonic()
    wait_until(lambda: running(outpost).keys() == names, 60, what="everything runs again")
    took = time.monotonic() - began
    after = running(outpost)
    assert not {c["id"] for c in after.values()} & {c["id"] for c in before.values()}
    assert (tmp_path / "order").read_text().split() == ["first", "second", "main"]
    whole = after["whole/main"]["id"]
    assert output(outpost, whole, "cat", "/settings/mode", "/keys/key", "/scratch/mode") == "edgesealededge"
    assert {"MODE=edge", "KEY=sealed"} <= set(output(outpost, whole, "env").split())
    # Nothing on the way waits for the API server; how long it takes is the machine's load, and the agent's start.
    assert took < 10 + 2 * first_took, (took, first_took)

    outpost.heal()
    wait_until(lambda: restarts(outpost.pod("whole")) == 1)
    outpost.wait_ready("whole", "n0", "n1", "n2", "n3")
    assert {c["id"] for c in running(outpost).values()} == {c["id"] for c in after.values()}


@pytest.mark.parametrize("restarted", [False, True], ids=["", "and-no-record"])
def test_a_pod_replaced_in_the_cloud_meanwhile_ends_before_its_successor_begins(
    outpost: Outpost, restarted: bool, tmp_path: Path
) -> None:
    """Also where only the runtime still knows the old one."""
    tmp_path.chmod(0o777)
    shared = [{"name": "shared", "hostPath": {"path": str(tmp_path)}}]
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    # It takes its time to leave, and shows as long as it is there.
    leaves = "trap 'end=$(($(date +%s) + 2))' TERM; while [ $(date +%s) -lt ${end:-9999999999} ]; do"
    old = container(f"{leaves} echo old >>/shared/lives; sleep 0.05; done", volumeMounts=mounts)
    new = container(f"echo new >>/shared/lives; {SLEEP}", volumeMounts=mounts)
    outpost.run(pod("again", old, volumes=shared), pod("deleted"))
    outpost.wait_ready("again", "deleted")
    first = container_ids(outpost.pod("again"))["main"]
    outpost.cut()
    if restarted:
        outpost.agent.kill9()
        for file in outpost.agent.root_dir.glob("record.db*"):
            file.unlink()
    outpost.kubectl("delete", "pod/again", "pod/deleted", "--force", "--grace-period=0")
    outpost.run(pod("again", new, volumes=shared))
    assert running(outpost)["again/main"]["id"] == first
    if restarted:
        outpost.agent.start()
    outpost.heal()
    outpost.wait_ready("again")
    lives = (tmp_path / "lives").read_text().split()
    assert "old" not in lives[lives.index("new") :]
    wait_until(lambda: {one["metadata"]["name"] for one in outpost.sandboxes()} == {"again"})
