"""What breaks under running pods: the agent killed, the runtime away, the world changed meanwhile."""

from __future__ import annotations

import json
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

from tests.integration.agent.edge import Edge, Object, container, container_ids, is_ready, pod, restarts
from tests.integration.support.waiting import wait_until

KILLS = int(os.environ.get("EDGELET_TEST_KILLS", "10"))
RUNTIME_AWAY_S = float(os.environ.get("EDGELET_TEST_RUNTIME_AWAY_S", "10"))
TRUE_AGAIN_S = 3.0


def test_an_agent_killed_ten_times_under_churn_restarts_doubles_and_loses_nothing(edge: Edge) -> None:
    """Ten pods that nobody touches, some that are replaced, and some that end by themselves while no agent is there."""
    steady = {f"steady-{n}" for n in range(10)}
    churned = {f"churn-{n}-0" for n in range(5)}
    enders = [f"ends-{n}" for n in range(KILLS)]
    edge.run(*map(pod, (*steady, *churned)), *(pod(name, restartPolicy="Never") for name in enders))
    edge.wait_ready(*steady, *churned, *enders, timeout=60)
    before = {one["metadata"]["name"]: container_ids(one) for one in edge.pods()}
    took: list[float] = []
    choice = random.Random(5)

    for round_, ender in enumerate(enders, start=1):
        gone = choice.choice(sorted(churned))
        come = f"{gone.rpartition('-')[0]}-{round_}"
        churned = churned - {gone} | {come}
        # In the middle of an end and of a start, at a moment that differs from round to round.
        edge.delete(f"pod/{gone}")
        edge.run(pod(come))
        time.sleep(choice.uniform(0, 0.4))
        edge.agent.kill9()
        edge.runtime.crictl("stop", "--timeout=10", before[ender]["main"])
        edge.agent.start()
        started = time.monotonic()
        edge.wait_phase(ender, "Succeeded")
        edge.wait_gone(gone)
        took.append(time.monotonic() - started)
        assert steady <= {one["metadata"]["name"] for one in edge.pods() if is_ready(one)}

    # One round may meet a machine that is busy with others' work.
    assert statistics.median(took) < TRUE_AGAIN_S, took
    edge.wait_ready(*churned)
    found = {one["metadata"]["name"]: one for one in edge.pods()}
    assert found.keys() == {*steady, *churned, *enders}
    for name in (*steady, *enders):
        assert (container_ids(found[name]), restarts(found[name])) == (before[name], 0)
    wait_until(lambda: len(edge.sandboxes()) == len(found), what="one sandbox a pod")
    ran = [container for container in edge.containers() if not never_ran(edge, container)]
    assert sorted(c["id"] for c in ran) == sorted(container_ids(one)["main"] for one in found.values())
    assert "Traceback" not in edge.agent_log()


def never_ran(edge: Edge, listed: Object) -> bool:
    """containerd gives up a start whose caller dies in the middle; what it leaves has not run, and is not a restart."""
    if listed["state"] == "CONTAINER_RUNNING":
        return False
    status = json.loads(edge.runtime.crictl("inspect", listed["id"]))["status"]
    return bool(status["reason"] == "StartError")


def test_what_was_under_way_when_the_agent_was_killed_is_finished_and_nothing_of_it_runs_twice(
    edge: Edge, tmp_path: Path
) -> None:
    def told(file: str) -> Object:
        return {"exec": {"command": ["sh", "-c", f"echo once >>/shared/{file}"]}}

    def has(file: str) -> bool:
        return (tmp_path / file).exists()

    def shared(name: str, main: Object, **more: Any) -> Object:
        volumes = [{"name": "shared", "hostPath": {"path": str(tmp_path)}}]
        return pod(name, {**main, "volumeMounts": mounts}, volumes=volumes, **more)

    mounts = [{"name": "shared", "mountPath": "/shared"}]
    tmp_path.chmod(0o777)
    slow = {"exec": {"command": ["sh", "-c", "echo once >>/shared/joined; sleep 4"]}}
    stops = "trap 'echo once >>/shared/signalled; sleep 5; exit 0' TERM; sleep 3600 & wait"
    begins = {**container("echo once >>/shared/initialized; sleep 4", name="first"), "volumeMounts": mounts}
    edge.run(shared("leaving", container(stops, lifecycle={"preStop": told("left")}), terminationGracePeriodSeconds=60))
    edge.wait_ready("leaving")
    edge.run(
        shared("joining", container(lifecycle={"postStart": slow})),
        shared("beginning", container(), initContainers=[begins]),
    )
    edge.delete("pod/leaving")
    wait_until(lambda: has("signalled") and has("joined") and has("initialized"))
    edge.agent.kill9()
    edge.agent.start()
    edge.wait_ready("joining", "beginning")
    edge.wait_gone("leaving", timeout=15)
    for file in ("left", "joined", "initialized"):
        assert (tmp_path / file).read_text() == "once\n", file
    assert [restarts(edge.pod(name)) for name in ("joining", "beginning")] == [0, 0]


def test_a_runtime_that_is_away_is_told_and_its_return_leaves_containers_untouched(every_edge: Edge) -> None:
    edge = every_edge
    names = [f"stays-{n}" for n in range(3)]
    edge.run(*(pod(name) for name in names))
    edge.wait_ready(*names)
    before = {name: container_ids(edge.pod(name)) for name in names}

    edge.runtime.stop()
    stopped = time.monotonic()
    wait_until(lambda: edge.agent.condition("Ready")["status"] == "False", 15)
    told = edge.agent.condition("Ready")
    assert told["reason"] == "KubeletNotReady"
    assert "container runtime is down" in told["message"]
    # Bound while nothing can run here: it waits, and is not refused.
    edge.run(pod("meanwhile"))
    time.sleep(max(0.0, RUNTIME_AWAY_S - (time.monotonic() - stopped)))  # the time away is what is tested
    assert edge.agent.running
    for name in names:
        assert (edge.pod(name)["status"]["phase"], container_ids(edge.pod(name))) == ("Running", before[name])
    assert edge.pod("meanwhile")["status"]["phase"] == "Pending"

    edge.runtime.start()
    wait_until(lambda: edge.agent.condition("Ready")["status"] == "True", 15)
    edge.wait_ready("meanwhile", *names)
    for name in names:
        after = edge.pod(name)
        assert (container_ids(after), restarts(after)) == (before[name], 0)
    assert {c["metadata"]["attempt"] for c in edge.containers()} == {0}
    assert not {"Killing", "SandboxChanged"} & {reason for name in names for reason, _ in edge.events(name)}


def test_a_container_that_dies_while_the_runtime_is_away_is_started_again(edge: Edge) -> None:
    edge.run(pod("dies"))
    edge.wait_ready("dies")
    (first,) = edge.containers()
    pid = json.loads(edge.runtime.crictl("inspect", first["id"]))["info"]["pid"]
    edge.runtime.stop()
    os.kill(pid, 9)
    edge.runtime.start()
    wait_until(lambda: restarts(edge.pod("dies")) == 1)
    edge.wait_ready("dies")
    assert container_ids(edge.pod("dies"))["main"] != first["id"]


def test_a_pod_of_the_same_name_is_made_again_twenty_times(edge: Edge) -> None:
    seen: set[str] = set()
    for _ in range(20):
        edge.run(pod("again", container(terminationMessagePolicy="File"), terminationGracePeriodSeconds=5))
        edge.wait_ready("again")
        uid = edge.pod("again")["metadata"]["uid"]
        assert uid not in seen
        seen.add(uid)
        edge.delete("pod/again")
        edge.wait_gone("again")
    wait_until(lambda: not edge.sandboxes())
    complaints = [line for line in edge.agent_log().splitlines() if "recondition" in line or "Traceback" in line]
    assert complaints == []


def test_a_pod_replaced_by_force_runs_under_its_new_uid_only(edge: Edge) -> None:
    """Deleted without waiting for the node, so for a moment there are two pods of a name here."""
    stubborn = pod("again", container("trap '' TERM; sleep 3600 & wait; sleep 3600"), terminationGracePeriodSeconds=2)
    edge.run(stubborn)
    edge.wait_ready("again")
    first = edge.pod("again")["metadata"]["uid"]
    edge.kubectl("delete", "pod/again", "--force", "--grace-period=0")
    edge.run(pod("again"))
    edge.wait_ready("again")
    second = edge.pod("again")["metadata"]["uid"]
    assert second != first
    wait_until(lambda: {one["metadata"]["uid"] for one in edge.sandboxes()} == {second})
    assert not [line for line in edge.agent_log().splitlines() if "recondition" in line]


def test_a_pod_deleted_while_no_agent_was_there_is_ended_after_the_start(edge: Edge) -> None:
    edge.run(pod("deleted"), pod("forced"), pod("stays"))
    edge.wait_ready("deleted", "forced", "stays")
    before = container_ids(edge.pod("stays"))
    edge.agent.kill9()
    edge.delete("pod/deleted")
    edge.kubectl("delete", "pod/forced", "--force", "--grace-period=0")
    edge.agent.start()
    edge.wait_gone("deleted")
    wait_until(lambda: {one["metadata"]["name"] for one in edge.sandboxes()} == {"stays"})
    assert container_ids(edge.pod("stays")) == before


def test_an_orphan_that_not_even_the_record_knows_is_ended_and_a_foreign_sandbox_is_not(
    edge: Edge, tmp_path: Path
) -> None:
    """The record is lost together with the pod's deletion; what tells the agent's sandbox from others is its label."""
    edge.run(pod("orphan"), pod("stays"))
    edge.wait_ready("orphan", "stays")
    before = container_ids(edge.pod("stays"))
    settings = {
        # Named like one of a kubelet's, with all of its labels.
        "metadata": {"name": "foreign", "namespace": edge.namespace, "uid": "foreign-uid", "attempt": 0},
        "labels": {
            "io.kubernetes.pod.name": "foreign",
            "io.kubernetes.pod.namespace": edge.namespace,
            "io.kubernetes.pod.uid": "foreign-uid",
        },
        "log_directory": str(tmp_path),
        "linux": {"cgroup_parent": f"{edge.runtime.cgroup}/foreign"},
    }
    (tmp_path / "foreign.json").write_text(json.dumps(settings))
    foreign = edge.runtime.crictl("runp", str(tmp_path / "foreign.json")).strip()

    edge.agent.kill9()
    for file in edge.agent.root_dir.glob("record.db*"):
        file.unlink()
    edge.kubectl("delete", "pod/orphan", "--force", "--grace-period=0")
    edge.agent.start()
    wait_until(lambda: {one["metadata"]["name"] for one in edge.sandboxes()} == {"foreign", "stays"})
    found = {one["id"]: one["state"] for one in edge.sandboxes()}
    assert found[foreign] == "SANDBOX_READY"
    edge.run(pod("next"))
    edge.wait_ready("next", "stays")
    assert (container_ids(edge.pod("stays")), restarts(edge.pod("stays"))) == (before, 0)
    assert foreign in {one["id"] for one in edge.sandboxes() if one["state"] == "SANDBOX_READY"}


def test_pods_run_on_through_a_partition_and_what_changed_is_done_after_it(edge: Edge) -> None:
    edge.run(pod("stays"), pod("crashes", container("sleep 2; exit 1")))
    edge.wait_ready("stays")
    before = container_ids(edge.pod("stays"))
    edge.plane.cut_off()
    try:
        first = {c["id"] for c in edge.containers()}
        # The record is enough for a cold start and for a restart of what crashes.
        edge.agent.kill9()
        edge.agent.start()
        wait_until(lambda: {c["id"] for c in edge.containers()} - first, 40, what="a container started when cut off")
        assert before["main"] in {c["id"] for c in edge.containers() if c["state"] == "CONTAINER_RUNNING"}
    finally:
        edge.plane.reconnect()
    wait_until(lambda: restarts(edge.pod("crashes")) >= 1)
    wait_until(lambda: is_ready(edge.pod("stays")))
    assert (container_ids(edge.pod("stays")), restarts(edge.pod("stays"))) == (before, 0)
    edge.delete("pod/crashes")
    edge.wait_gone("crashes")


def test_pods_deleted_while_they_start_leave_nothing_that_runs_after_their_end(every_edge: Edge) -> None:
    """The end of the API object is the promise that no process of the pod is left, also in the middle of a start."""
    edge = every_edge
    names = [f"early-{n}" for n in range(8)]
    for moment in (0.0, 0.15, 0.3, 0.5):
        # A shell that is told to end in its first milliseconds has no trap yet, and uses up its grace.
        edge.run(*(pod(name, terminationGracePeriodSeconds=2) for name in names))
        if moment:
            wait_until(edge.sandboxes)
        time.sleep(moment)  # the moment of the start is what is tested
        edge.delete(*(f"pod/{name}" for name in names))
        edge.wait_gone()
        assert [c["id"] for c in edge.containers() if c["state"] == "CONTAINER_RUNNING"] == []
        wait_until(lambda: not edge.sandboxes() and not edge.containers(), 5)
    failed = [line for line in edge.agent_log().splitlines() if "cannot clean up" in line]
    assert failed == []
