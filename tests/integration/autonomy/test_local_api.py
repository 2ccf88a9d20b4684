"""The local API on a real node: kubectl with the control plane stopped, and a watching client over cuts."""

from __future__ import annotations

import json
import random
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, watch

from hack import binaries
from hack.control_plane import ControlPlane
from hack.processes import free_port
from hack.runtime import Containerd
from tests.integration.agent.edge import Edge, container, pod
from tests.integration.autonomy.conftest import through
from tests.integration.autonomy.relay import Cut, Relay
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

CUTS = 10
RESTARTS = (3, 7)
"""Cuts in which the API server ends and comes back without its history."""
SHELL = "echo begun; trap 'exit 0' TERM; while true; do sleep 1 & wait; done"


@dataclass(frozen=True)
class Local:
    """A node whose local API listens, and what asks it."""

    edge: Edge
    port: int
    relay: Relay

    @property
    def kubeconfig(self) -> Path:
        return self.edge.agent.root_dir / "local-api.kubeconfig"

    @property
    def ca(self) -> Path:
        return self.edge.agent.root_dir / "local-api.crt"

    def kubectl(self, *args: str, check: bool = True) -> str:
        return self.edge.plane.kubectl(*args, kubeconfig=self.kubeconfig, check=check)

    def request(self, path: str, token: str, method: str = "GET", body: Any = None) -> tuple[int, Any, dict[str, str]]:
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}", method=method)
        request.add_header("Authorization", f"Bearer {token}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        context = ssl.create_default_context(cafile=str(self.ca))
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                return answer.status, json.load(answer), dict(answer.headers)
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.load(refusal), dict(refusal.headers)


@pytest.fixture
def more_flags() -> list[str]:
    """A test overrides it by parametrizing."""
    return []


@pytest.fixture
def local(
    agent: AgentFactory,
    one_containerd: Containerd,
    control_plane: ControlPlane,
    namespace: str,
    relay: Relay,
    more_flags: list[str],
) -> Iterator[Local]:
    port, node = free_port(), f"edge-{uuid.uuid4().hex[:6]}"
    link = through(relay.port, control_plane, node)
    made = agent(node, flags=[f"--local-api=127.0.0.1:{port}", f"--kubeconfig={link}", *more_flags])
    yield Local(Edge(made, one_containerd, control_plane, namespace), port, relay)
    if not control_plane.api_server.running:
        # Controllers that were alone for a while take their time: new ones don't.
        control_plane.controller_manager.kill()
        control_plane.scheduler.kill()
        control_plane.reconnect()


def service_account_token(local: Local, role: str = "admin") -> str:
    """Of an account that may do in the namespace what the role says."""
    edge = local.edge
    edge.kubectl("create", "serviceaccount", "robot")
    account = f"--serviceaccount={edge.namespace}:robot"
    edge.kubectl("create", "rolebinding", "robot", f"--clusterrole={role}", account)
    return edge.kubectl("create", "token", "robot").strip()


def test_kubectl_reads_logs_and_executes_while_the_control_plane_is_stopped(local: Local) -> None:
    edge = local.edge
    edge.run(pod("web", container(SHELL), metadata={"labels": {"app": "web"}}), pod("other"))
    edge.wait_ready("web", "other")
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
    assert "Conditions:" in local.kubectl("describe", "node", edge.node)
    yaml = local.kubectl("get", "pod", "web", "-n", edge.namespace, "-o", "yaml")
    assert "kind: Pod" in yaml
    assert "podIP: " in yaml
    assert local.kubectl("logs", "web", "-n", edge.namespace) == "begun\n"
    assert local.kubectl("exec", "web", "-n", edge.namespace, "--", "echo", "here") == "here\n"
    assert "configmap/kube-root-ca.crt" in local.kubectl("get", "cm", "-n", edge.namespace, "-o", "name")
    assert "secrets" not in local.kubectl("api-resources")

    command: list[str | Path] = [binaries.find("kubectl"), "--kubeconfig", local.kubeconfig, "-n", edge.namespace]
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


class Informer:
    """A list, then its watch for ever, as client libraries keep a cache."""

    def __init__(self, api: client.CoreV1Api, namespace: str) -> None:
        self.objects: dict[str, Any] = {}
        self.lists = 0
        self.over = False
        self._api = api
        self._namespace = namespace
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.over:
            try:
                listed = self._api.list_namespaced_config_map(self._namespace, _request_timeout=20)
                self.lists += 1
                self.objects = {item.metadata.name: item.metadata.resource_version for item in listed.items}
                self._follow(listed.metadata.resource_version)
            except (client.ApiException, OSError, ValueError) as problem:
                print("informer:", problem)
                time.sleep(0.2)
            except Exception as problem:
                if "urllib3" not in type(problem).__module__:
                    raise
                time.sleep(0.2)

    def _follow(self, version: str) -> None:
        changes = watch.Watch()
        call = self._api.list_namespaced_config_map
        for event in changes.stream(call, self._namespace, resource_version=version, timeout_seconds=600):
            if self.over:
                return
            meta = event["object"].metadata
            if event["type"] == "DELETED":
                self.objects.pop(meta.name, None)
            else:
                self.objects[meta.name] = meta.resource_version


@pytest.mark.timeout(240)
def test_a_clients_cache_over_ten_cuts_ends_equal_to_the_api_server(local: Local) -> None:
    edge = local.edge
    token = service_account_token(local)
    path = f"/api/v1/namespaces/{edge.namespace}/configmaps"
    wait_until(lambda: local.request(path, token)[0] == 200, what="its role is known")
    settings = client.Configuration(host=f"https://127.0.0.1:{local.port}")
    settings.ssl_ca_cert = str(local.ca)
    settings.api_key = {"authorization": f"Bearer {token}"}
    informer = Informer(client.CoreV1Api(client.ApiClient(settings)), edge.namespace)
    chance = random.Random(6)
    for cut in range(CUTS):
        maps = [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"m{number}"}, "data": {"cut": str(cut)}}
            for number in chance.sample(range(8), 4)
        ]
        edge.apply(*maps)
        time.sleep(chance.uniform(0.0, 0.5))
        if cut in RESTARTS:
            edge.plane.api_server.kill()
            edge.plane.reconnect()
            continue
        local.relay.cut(chance.choice([Cut.REFUSED, Cut.SILENT]))
        edge.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"unseen-{cut}"}})
        edge.kubectl("delete", "configmap", f"m{chance.randrange(8)}", "--ignore-not-found")
        time.sleep(chance.uniform(0.0, 1.0))
        local.relay.heal()

    def same() -> bool:
        there = {
            item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in edge.get("configmaps")["items"]
        }
        return there == informer.objects

    wait_until(same, 30, what="the cache is what the API server has")
    assert informer.lists <= 2  # the watch went on over the cuts
    informer.over = True
