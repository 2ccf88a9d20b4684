"""The local API on a real node: kubectl with the control plane stopped, callers of the cluster's, pods' own clients."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from hack import binaries
from tests.integration.agent.edge import container, pod
from tests.integration.autonomy.local import Local, service_account_token
from tests.integration.autonomy.relay import Cut
from tests.integration.support.waiting import wait_until

SHELL = "echo begun; trap 'exit 0' TERM; while true; do sleep 1 & wait; done"


def test_kubectl_reads_logs_and_executes_while_the_control_plane_is_stopped(local: Local) -> None:
    edge = local.edge
    edge.run(pod("web", container(SHELL), metadata={"labels": {"app": "web"}}), pod("other"))
    edge.wait_ready("web", "other")
    command: list[str | Path] = [binaries.find("kubectl"), "--kubeconfig", local.kubeconfig, "-n", edge.namespace]
    edge.plane.cut_off()

    wide = local.kubectl("get", "pods", "-A", "-o", "wide").splitlines()
    assert wide[0].split()[:7] == ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP"]
    rows = {line.split()[1]: line.split() for line in wide[1:]}
    assert rows["web"][2:4] == ["1/1", "Running"]
    assert edge.node in rows["web"]
    assert "other" not in local.kubectl("get", "pods", "-n", edge.namespace, "-l", "app=web")
    assert local.kubectl("get", "pods", "-A", "--field-selector=metadata.name=web", "-o", "name") == "pod/web\n"
    assert "Ready" in local.kubectl("get", "nodes").splitlines()[1].split()
    described = local.kubectl("describe", "pod", "web", "-n", edge.namespace)
    assert "Started" in described.partition("Events:")[2]
    node = local.kubectl("describe", "node", edge.node)
    assert "KubeletReady" in node.partition("Conditions:")[2]
    assert {"web", "other"} <= {words[1] for line in node.splitlines() if len(words := line.split()) > 5}
    listed = yaml.safe_load(local.kubectl("get", "pods", "-n", edge.namespace, "-o", "yaml"))
    assert {one["metadata"]["name"]: one["kind"] for one in listed["items"]} == {"web": "Pod", "other": "Pod"}
    assert all(one["status"]["podIP"] for one in listed["items"])
    events = local.kubectl("events", "-n", edge.namespace, "--for=pod/web")
    assert events.split()[:4] == ["LAST", "SEEN", "TYPE", "REASON"]
    assert "Container started: main" in events
    assert f"node/{edge.node}" in local.kubectl("get", "events", "-A")
    assert local.kubectl("logs", "web", "-n", edge.namespace) == "begun\n"
    assert local.kubectl("exec", "web", "-n", edge.namespace, "--", "echo", "here") == "here\n"
    piped = [*command, "exec", "-i", "web", "--", "cat"]
    assert subprocess.run(piped, input="through\n", capture_output=True, text=True, check=True).stdout == "through\n"
    assert "configmap/kube-root-ca.crt" in local.kubectl("get", "cm", "-A", "-o", "name")
    of_cluster = yaml.safe_load(local.kubectl("get", "cm", "kube-root-ca.crt", "-n", edge.namespace, "-o", "yaml"))
    assert of_cluster["data"]["ca.crt"] == edge.plane.client_ca.read_text()
    assert "secrets" not in local.kubectl("api-resources")

    follower = subprocess.Popen([*command, "logs", "-f", "web"], stdout=subprocess.PIPE, text=True)
    watcher = subprocess.Popen([*command, "get", "pods", "-w"], stdout=subprocess.PIPE, text=True)
    try:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "begun\n"
        local.kubectl("exec", "web", "-n", edge.namespace, "--", "sh", "-c", "echo followed > /proc/1/fd/1")
        assert follower.stdout.readline() == "followed\n"
        assert watcher.stdout is not None
        assert watcher.stdout.readline().startswith("NAME")
    finally:
        for process in (follower, watcher):
            process.kill()
            process.wait()

    refused = subprocess.run(
        [*command, "delete", "pod", "web"], capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode != 0
    assert "does not answer" in refused.stderr
    edge.agent.kill9()
    edge.agent.start()
    wait_until(lambda: "Running" in local.kubectl("get", "pods", "-A"), what="served by the next agent")
    assert edge.node in local.kubectl("get", "nodes")


def test_a_caller_of_the_clusters_gets_its_own_answers_also_while_cut_off(local: Local) -> None:
    edge = local.edge
    edge.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1"}})
    token = service_account_token(local)
    path = f"/api/v1/namespaces/{edge.namespace}/configmaps"
    wait_until(lambda: local.request(path, token)[0] == 200, what="its role is known")
    fresh = local.request(f"{path}?limit=500", token)
    assert "X-Edgelet-Age" not in fresh[2]
    new = {"metadata": {"name": "made"}, "data": {}}
    assert local.request(path, token, "POST", new)[0] == 201
    assert local.request("/api/v1/nodes", token)[0] == 403  # the node itself could
    assert local.request(path, "of-nobody")[0] == 401
    listed = local.request(path, token)[1]["items"]
    next_token = edge.kubectl("create", "token", "robot").strip()
    assert local.request(f"{path}/settings", next_token)[0] == 200

    local.relay.cut(Cut.REFUSED)
    status, body, headers = wait_until(lambda: local.request(path, next_token), what="an answer")
    assert (status, body["items"]) == (200, listed)
    assert headers["Warning"].startswith("299 ")
    assert int(headers["X-Edgelet-Age"]) >= 0
    status, body, headers = local.request(path, token, "POST", new)
    assert (status, body["reason"], headers["Retry-After"]) == (503, "ServiceUnavailable", "1")
    assert local.request(path, "of-nobody")[0] == 503
    assert local.request("/api/v1/nodes", token)[0] == 503


@pytest.mark.parametrize("more_flags", [["--inject-local-api"]])
def test_a_pods_own_client_finds_the_local_api_and_goes_on_while_cut_off(local: Local) -> None:
    """What its client library would use is taken out of the pod, and used from here: it is on the host's network."""
    edge = local.edge
    edge.run(pod("robot", hostNetwork=True), pod("apart"))
    edge.wait_ready("robot", "apart")
    edge.kubectl("create", "rolebinding", "robot", "--clusterrole=view", f"--serviceaccount={edge.namespace}:default")

    def inside(name: str, script: str) -> str:
        return local.kubectl("exec", name, "-n", edge.namespace, "--", "sh", "-c", script)

    host, port = inside("robot", "echo $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT").split()
    assert (host, port) == ("127.0.0.1", str(local.port))
    assert inside("apart", "echo $KUBERNETES_SERVICE_HOST").strip() == "10.96.0.1"
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    token = inside("robot", f"cat {account}/token")
    trust = ssl.create_default_context(cadata=inside("robot", f"cat {account}/ca.crt"))

    def ask() -> tuple[int, bool]:
        url = f"https://{host}:{port}/api/v1/namespaces/{edge.namespace}/pods"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, context=trust, timeout=30) as answer:
            return len(json.load(answer)["items"]), "X-Edgelet-Age" in answer.headers

    assert wait_until(ask, what="its role is known") == (2, False)
    local.relay.cut(Cut.REFUSED)
    assert ask() == (2, True)
