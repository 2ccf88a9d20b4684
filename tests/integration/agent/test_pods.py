"""One pod at a time: what it may refer to, how it starts, how it ends."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from typing import Any

import pytest

from tests.integration.agent.edge import (
    SLEEP,
    Edge,
    condition,
    container,
    container_ids,
    is_ready,
    pod,
    restarts,
    status_of,
)
from tests.integration.support.waiting import wait_until

NONE_LISTENS = "127.0.0.1:1/none:1"


def exec_in(edge: Edge, name: str, *command: str, container: str = "main") -> str:
    return edge.runtime.crictl("exec", container_ids(edge.pod(name))[container], *command)


def test_init_containers_run_in_order_before_the_sidecar_and_the_main_one(every_guest: Edge) -> None:
    shared: dict[str, Any] = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}

    def says(word: str) -> str:
        return f"echo {word} >>/shared/said"

    every_guest.run(
        pod(
            "ordered",
            container(f"{says('main')}; cat /shared/said; {SLEEP}", **shared),
            initContainers=[
                container(says("first"), "first", **shared),
                container(f"{says('sidecar')}; {SLEEP}", "sidecar", restartPolicy="Always", **shared),
                container(f"sleep 0.2; {says('second')}", "second", **shared),
            ],
            volumes=[{"name": "shared", "emptyDir": {}}],
        )
    )
    every_guest.wait_ready("ordered")
    said = wait_until(lambda: every_guest.log("ordered", "--container=main"))
    assert said.split() == ["first", "sidecar", "second", "main"]
    found = every_guest.pod("ordered")
    assert {name: list(status_of(found, name)["state"]) for name in ("first", "sidecar", "second", "main")} == {
        "first": ["terminated"],
        "sidecar": ["running"],
        "second": ["terminated"],
        "main": ["running"],
    }
    assert condition(found, "Initialized")["status"] == "True"


def test_an_init_container_that_fails_is_tried_again_and_holds_the_pod_back(guest: Edge) -> None:
    script = "[ -e /shared/tried ] && exit 0; touch /shared/tried; exit 1"
    mounted = container(script, "init", volumeMounts=[{"name": "shared", "mountPath": "/shared"}])
    guest.run(
        pod("retries", initContainers=[mounted], volumes=[{"name": "shared", "emptyDir": {}}]),
        pod("fails", initContainers=[container("exit 4", "init")], restartPolicy="Never"),
    )
    guest.wait_phase("fails", "Failed")
    assert status_of(guest.pod("fails"))["state"]["waiting"]["reason"] == "PodInitializing"
    guest.wait_ready("retries")
    assert status_of(guest.pod("retries"), "init")["restartCount"] == 1


def test_a_pod_ends_as_its_restart_policy_says(guest: Edge) -> None:
    flaky = "[ -e /shared/tried ] && exit 0; touch /shared/tried; exit 7"
    shared: dict[str, Any] = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    volumes = [{"name": "shared", "emptyDir": {}}]
    guest.run(
        pod("never-good", container("exit 0"), restartPolicy="Never"),
        pod("never-bad", container("exit 7"), restartPolicy="Never"),
        pod("on-failure", container(flaky, **shared), restartPolicy="OnFailure", volumes=volumes),
        pod("always", container("exit 0")),
        pod("mixed", container("exit 1", "bad"), container(SLEEP, "runs"), restartPolicy="Never"),
    )
    guest.wait_phase("never-good", "Succeeded")
    assert status_of(guest.wait_phase("never-bad", "Failed"))["state"]["terminated"]["exitCode"] == 7
    once = status_of(guest.wait_phase("on-failure", "Succeeded"))
    assert once["restartCount"] == 1
    assert once["lastState"]["terminated"]["exitCode"] == 7
    assert guest.pod("mixed")["status"]["phase"] == "Running"

    def in_backoff() -> Any:
        return status_of(guest.pod("always"))["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"

    wait_until(in_backoff)
    assert restarts(guest.pod("always")) >= 1
    assert status_of(guest.pod("always"))["lastState"]["terminated"]["reason"] == "Completed"
    wait_until(lambda: "BackOff" in dict(guest.events("always")))


def test_a_crashing_container_waits_ten_seconds_before_its_second_restart(guest: Edge) -> None:
    guest.run(pod("crashes", container("exit 1")))
    wait_until(lambda: restarts(guest.pod("crashes")) == 2)
    runs = sorted(
        json.loads(guest.runtime.crictl("inspect", c["id"]))["status"]["startedAt"] for c in guest.containers()
    )
    first, second = (time.mktime(time.strptime(run[:19], "%Y-%m-%dT%H:%M:%S")) for run in runs[-2:])
    assert 9 <= second - first <= 13


def test_a_pod_is_given_its_grace_and_no_more(every_guest: Edge) -> None:
    polite = "trap 'sleep 1; echo bye; exit 0' TERM; echo up; sleep 3600 & wait"
    stubborn = "trap '' TERM; while :; do sleep 0.1; done"
    every_guest.run(
        pod("polite", container(polite), terminationGracePeriodSeconds=30),
        pod("stubborn", container(stubborn), terminationGracePeriodSeconds=3),
        pod("given-less", container(stubborn), terminationGracePeriodSeconds=300),
    )
    every_guest.wait_ready("polite", "stubborn", "given-less")
    with every_guest.following("polite") as log:
        assert log.readline() == "up\n"
        begun = time.monotonic()
        every_guest.delete("pod/polite", "pod/stubborn")
        every_guest.delete("pod/given-less", "--grace-period=2")
        assert log.read() == "bye\n"
    every_guest.wait_gone("polite")
    assert 1 <= time.monotonic() - begun < 15
    every_guest.wait_gone("stubborn", "given-less")
    assert 3 <= time.monotonic() - begun < 20
    wait_until(lambda: not every_guest.sandboxes())


def test_a_pre_stop_hook_is_run_before_the_signal(guest: Edge) -> None:
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >>/proc/1/fd/1"]}}}
    guest.run(pod("hooked", container("trap 'echo term; exit 0' TERM; echo up; sleep 3600 & wait", lifecycle=hook)))
    guest.wait_ready("hooked")
    with guest.following("hooked") as log:
        assert log.readline() == "up\n"
        guest.delete("pod/hooked")
        assert log.read() == "hook\nterm\n"
    guest.wait_gone("hooked")


def test_an_image_that_cannot_be_pulled_is_told_and_waited_for(guest: Edge) -> None:
    guest.run(
        pod("unreachable", container(image=NONE_LISTENS)),
        pod("never", container(image="docker.io/library/none:1", imagePullPolicy="Never")),
        pod("misspelt", container(image="Not//An:Image:")),
    )

    def waits(name: str, *reasons: str) -> bool:
        return status_of(guest.pod(name))["state"].get("waiting", {}).get("reason") in reasons

    wait_until(lambda: waits("unreachable", "ErrImagePull"), interval=0.02)
    wait_until(lambda: waits("unreachable", "ImagePullBackOff"))
    wait_until(lambda: {"Pulling", "Failed", "BackOff"} <= dict(guest.events("unreachable")).keys())
    wait_until(lambda: waits("never", "ErrImageNeverPull"))
    wait_until(lambda: waits("misspelt", "InvalidImageName"))
    assert guest.pod("unreachable")["status"]["phase"] == "Pending"
    guest.delete("pod/unreachable")
    guest.wait_gone("unreachable")


def test_a_config_map_reaches_its_volume_while_the_pod_runs(every_guest: Edge) -> None:

    def settings(word: str) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"word": word}}

    every_guest.apply(settings("before"))
    mounts = [{"name": "settings", "mountPath": "/settings"}]
    volumes = [{"name": "settings", "configMap": {"name": "settings"}}]
    every_guest.run(pod("reads", container(volumeMounts=mounts), volumes=volumes))
    every_guest.wait_ready("reads")
    assert exec_in(every_guest, "reads", "cat", "/settings/word") == "before"
    every_guest.apply(settings("after"))
    wait_until(lambda: exec_in(every_guest, "reads", "cat", "/settings/word") == "after", 90, interval=0.2)
    assert restarts(every_guest.pod("reads")) == 0


def test_environment_and_downward_api_tell_a_container_where_it_is(guest: Edge) -> None:
    guest.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"password": "s3cret"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "all"}, "data": {"COLOR": "blue", "SIZE": "3"}},
    )
    env = [
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
        {"name": "SENTENCE", "value": "$(POD) on $(NODE) costs $$(NODE)"},
    ]
    limits = {"limits": {"memory": "64Mi", "cpu": "200m"}}
    guest.run(
        pod("told", container(f"env; {SLEEP}", env=env, envFrom=[{"configMapRef": {"name": "all"}}], resources=limits))
    )
    guest.wait_ready("told")
    found = guest.pod("told")
    lines = set(wait_until(lambda: guest.log("told")).splitlines())
    assert {
        "PASSWORD=s3cret",
        "POD=told",
        f"IP={found['status']['podIP']}",
        f"NODE={guest.node}",
        f"LIMIT={64 << 20}",
        f"SENTENCE=told on {guest.node} costs $(NODE)",
        "COLOR=blue",
        "SIZE=3",
    } <= lines
    assert "KUBERNETES_SERVICE_HOST=10.96.0.1" in lines
    status = found["status"]
    asked = {**limits, "requests": limits["limits"]}
    (main,) = status["containerStatuses"]
    assert (main["resources"], main["allocatedResources"]) == (asked, limits["limits"])
    assert (status["resources"], status["allocatedResources"]) == (asked, limits["limits"])
    (token,) = main["volumeMounts"]
    assert (token["readOnly"], token["recursiveReadOnly"]) == (True, "Disabled")
    # containerd tells it since 2.0.
    assert main.get("user", {}).get("linux", {}).get("uid", 0) == 0


def test_a_pods_token_is_its_own_and_good_for_the_api_server(every_guest: Edge) -> None:
    every_guest.run(pod("trusted"))
    every_guest.wait_ready("trusted")
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    token = exec_in(every_guest, "trusted", "cat", f"{account}/token")
    assert exec_in(every_guest, "trusted", "cat", f"{account}/namespace") == every_guest.namespace
    assert "BEGIN CERTIFICATE" in exec_in(every_guest, "trusted", "cat", f"{account}/ca.crt")
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    answer = json.loads(every_guest.plane.kubectl("create", "--filename=-", "--output=json", stdin=json.dumps(review)))
    status = answer["status"]
    assert status["authenticated"] is True
    assert status["user"]["username"] == f"system:serviceaccount:{every_guest.namespace}:default"
    assert status["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["trusted"]
    assert status["user"]["extra"]["authentication.kubernetes.io/node-name"] == [every_guest.node]
    claims = token.split(".")[1]
    expires = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"]
    assert expires - time.time() > 0


def test_a_readiness_probe_decides_over_ready_and_a_liveness_probe_over_a_restart(guest: Edge) -> None:
    script = f"touch /tmp/alive; {SLEEP}"
    ready = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}
    alive = {"exec": {"command": ["test", "-e", "/tmp/alive"]}, "periodSeconds": 1, "failureThreshold": 1}
    guest.run(pod("probed", container(script, readinessProbe=ready, livenessProbe={**alive, "initialDelaySeconds": 1})))
    wait_until(lambda: "running" in status_of(guest.pod("probed"))["state"])
    wait_until(lambda: "Unhealthy" in dict(guest.events("probed")))
    assert not is_ready(guest.pod("probed"))
    exec_in(guest, "probed", "touch", "/tmp/ready")
    guest.wait_ready("probed")
    exec_in(guest, "probed", "rm", "/tmp/ready")
    wait_until(lambda: not is_ready(guest.pod("probed")))
    exec_in(guest, "probed", "rm", "/tmp/alive")
    wait_until(lambda: restarts(guest.pod("probed")) == 1)
    wait_until(lambda: "Killing" in dict(guest.events("probed")))


def test_crictl_and_log_shippers_find_a_pod_by_the_kubelets_names(every_guest: Edge) -> None:
    every_guest.run(pod("found", container(f"echo here; {SLEEP}")))
    every_guest.wait_ready("found")
    found = every_guest.pod("found")
    uid, identity = found["metadata"]["uid"], container_ids(found)["main"]
    (sandbox,) = json.loads(every_guest.runtime.crictl("pods", "--name=found", "--output=json"))["items"]
    assert sandbox["metadata"]["uid"] == uid
    (listed,) = every_guest.containers()
    assert listed["labels"] == {
        **listed["labels"],
        "io.kubernetes.pod.name": "found",
        "io.kubernetes.pod.namespace": every_guest.namespace,
        "io.kubernetes.pod.uid": uid,
        "io.kubernetes.container.name": "main",
    }
    log = every_guest.agent.pod_logs_dir / f"{every_guest.namespace}_found_{uid}" / "main" / "0.log"
    wait_until(lambda: log.read_text().endswith("here\n"))
    link = every_guest.agent.container_log_links_dir / f"found_{every_guest.namespace}_main-{identity}.log"
    assert link.resolve() == log.resolve()
    every_guest.delete("pod/found")
    wait_until(lambda: not log.exists() and not link.is_symlink())


def test_a_pod_starts_over_in_its_sandbox_when_a_rule_says_so(edge: Edge) -> None:
    rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}
    first = "test -e /shared/again || { touch /shared/again; sleep 1; exit 42; }"
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    source = container(f"{first}; {SLEEP}", restartPolicy="Never", restartPolicyRules=[rule], volumeMounts=mounts)
    edge.run(
        pod(
            "over",
            source,
            container(SLEEP, "other"),
            initContainers=[container("true", "first")],
            restartPolicy="Never",
            volumes=[{"name": "shared", "emptyDir": {}}],
        )
    )

    def over() -> Any:
        status = edge.pod("over")["status"]
        both = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
        return is_ready(edge.pod("over")) and [s["restartCount"] for s in both] == [1, 1, 1] and both

    told = wait_until(over)
    assert {s["lastState"]["terminated"]["reason"] for s in told} == {"RestartingAllContainers"}
    assert len(edge.sandboxes()) == 1


def test_the_runtimes_own_folders_are_spread_over_the_disk(every_guest: Edge) -> None:
    root = every_guest.runtime.root
    below = ("io.containerd.grpc.v1.cri/sandboxes", "io.containerd.grpc.v1.cri/containers")
    folders = [root / "io.containerd.snapshotter.v1.overlayfs/snapshots", root / "io.containerd.runtime.v2.task/k8s.io"]
    folders += [root / name for name in below]
    if not subprocess.check_output(["stat", "-f", "-c", "%T", root], text=True).startswith("ext"):
        pytest.skip("no ext4 here")
    every_guest.run(pod("spread", container(SLEEP)))
    every_guest.wait_ready("spread")
    told = subprocess.check_output(["lsattr", "-d", *folders], text=True)
    assert all("T" in line.split()[0] for line in told.splitlines()), told
    # Its own paths, not ones of our making: each has the pod's.
    assert all(any(folder.iterdir()) for folder in folders)
