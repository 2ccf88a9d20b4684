"""metrics-server as it ships, with the cluster's CA and no insecure flag: `kubectl top` says what the cgroups say.

Skipped where it was not built: `python -m hack.binaries metrics-server` takes minutes, so `make test` doesn't.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.model.quantity import parse
from agent.model.status import unix_seconds
from agent.pods.cgroups import CGROUP_FS, CgroupVersion, cgroup_version
from hack import binaries
from hack.control_plane import ControlPlane
from hack.processes import Daemon, free_port
from hack.runtime import Containerd
from tests.integration.agent.edge import Edge
from tests.integration.agent.figures import run_busy
from tests.integration.conftest import AgentFactory
from tests.integration.support.waiting import wait_until

pytestmark = [
    pytest.mark.skipif(not binaries.is_built("metrics-server"), reason="metrics-server is not built"),
    pytest.mark.skipif(cgroup_version() is CgroupVersion.V2, reason="compares with version 1's files"),
]
NAME = "metrics-server"
SPACE = "kube-system"


def objects(port: int, authority: str) -> list[dict[str, Any]]:
    """What its release manifest has, but for the Deployment: it runs beside the API server here."""
    subject = [{"kind": "ServiceAccount", "name": NAME, "namespace": SPACE}]
    rbac = "rbac.authorization.k8s.io"

    def binding(kind: str, name: str, role: str, of: str) -> dict[str, Any]:
        metadata = {"name": name, **({"namespace": SPACE} if kind == "RoleBinding" else {})}
        reference = {"apiGroup": rbac, "kind": of, "name": role}
        return {
            "apiVersion": f"{rbac}/v1",
            "kind": kind,
            "metadata": metadata,
            "roleRef": reference,
            "subjects": subject,
        }

    rules = [
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
    ]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": SPACE}},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": f"system:{NAME}"}, "rules": rules},
        binding("ClusterRoleBinding", f"system:{NAME}", f"system:{NAME}", "ClusterRole"),
        binding("ClusterRoleBinding", f"{NAME}:system:auth-delegator", "system:auth-delegator", "ClusterRole"),
        binding("RoleBinding", f"{NAME}-auth-reader", "extension-apiserver-authentication-reader", "Role"),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": NAME, "namespace": SPACE},
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "caBundle": authority,
                "service": {"name": NAME, "namespace": SPACE, "port": port},
            },
        },
    ]


@contextmanager
def metrics_server(plane: ControlPlane, folder: Path) -> Iterator[None]:
    folder.mkdir()
    port = free_port()
    admin = yaml.safe_load(plane.admin_kubeconfig.read_text())
    listed = objects(port, admin["clusters"][0]["cluster"]["certificate-authority-data"])
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": listed})
    plane.kubectl("apply", "--filename=-", stdin=manifest)
    token = plane.kubectl("create", "token", NAME, f"--namespace={SPACE}").strip()
    own = folder / "kubeconfig"
    users = [{"name": admin["users"][0]["name"], "user": {"token": token}}]
    own.write_text(yaml.safe_dump({**admin, "users": users}))
    certificate, key = plane.serving_certificate(folder, NAME, [f"{NAME}.{SPACE}.svc", "localhost", "127.0.0.1"])
    command: list[str | Path] = [
        binaries.find("metrics-server"),
        f"--secure-port={port}",
        "--bind-address=127.0.0.1",
        *(f"--{flag}kubeconfig={own}" for flag in ("", "authentication-", "authorization-")),
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        f"--kubelet-certificate-authority={plane.client_ca}",
        "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
        "--kubelet-use-node-status-port",
        "--metric-resolution=15s",
    ]
    daemon = Daemon(NAME, command, folder, working_folder=folder)  # it writes certificates where it stands
    daemon.start()
    try:
        yield
    except BaseException:
        print(daemon.log.read_text(errors="replace")[-4000:])
        raise
    finally:
        daemon.stop()
        plane.kubectl("delete", "--filename=-", "--wait=false", stdin=manifest, check=False)


@dataclass
class Sampled:
    """A cgroup's own numbers over time, read beside whatever else goes on."""

    cgroup: str
    at: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    def take(self) -> None:
        memory = CGROUP_FS / "memory" / self.cgroup
        stat = dict(line.split() for line in (memory / "memory.stat").read_text().splitlines())
        used = int((memory / "memory.usage_in_bytes").read_text())
        self.memory.append(used - int(stat["total_inactive_file"]))
        self.cpu_s.append(int((CGROUP_FS / "cpuacct" / self.cgroup / "cpuacct.usage").read_text()) / 1e9)
        self.at.append(time.time())

    def cores(self, begin: float, end: float) -> float:
        return (self._cpu_at(end) - self._cpu_at(begin)) / (end - begin)

    def working_set(self, begin: float, end: float) -> tuple[int, int]:
        """Least and most in that time."""
        held = self.memory[max(0, bisect_left(self.at, begin) - 1) : bisect_left(self.at, end) + 1]
        return min(held), max(held)

    def _cpu_at(self, at: float) -> float:
        """Between two readings in proportion."""
        after = min(max(bisect_left(self.at, at), 1), len(self.at) - 1)
        first, second = self.at[after - 1], self.at[after]
        share = (at - first) / (second - first)
        return self.cpu_s[after - 1] + share * (self.cpu_s[after] - self.cpu_s[after - 1])


@contextmanager
def sampling(*cgroups: Sampled) -> Iterator[None]:
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.1):
            for one in cgroups:
                one.take()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_top_says_what_the_cgroups_say(
    agent: AgentFactory, one_containerd: Containerd, control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    certificate, key = control_plane.serving_certificate(tmp_path, "edge", ["127.0.0.1"])
    node = agent(flags=[f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}"])
    edge = Edge(node, one_containerd, control_plane, namespace)
    of_pod, of_node = Sampled(run_busy(edge)), Sampled("")

    def told(path: str) -> dict[str, Any] | None:
        try:
            return dict(json.loads(edge.kubectl("get", "--raw", f"/apis/metrics.k8s.io/v1beta1/{path}")))
        except subprocess.CalledProcessError:
            return None

    with sampling(of_pod, of_node), metrics_server(control_plane, tmp_path / NAME):
        pod = wait_until(lambda: told(f"namespaces/{namespace}/pods/busy"), 90, what="metrics of the pod")
        machine = wait_until(lambda: told(f"nodes/{edge.node}"), 30, what="metrics of the node")
        top_pod = edge.kubectl("top", "pod", "busy", "--no-headers").split()
        top_node = edge.kubectl("top", "node", edge.node, "--no-headers").split()
        time.sleep(0.5)  # a reading after the end of the windows
    (main,) = pod["containers"]
    _agrees(main["usage"], pod, of_pod)
    _agrees(machine["usage"], machine, of_node)
    # As people see it; one scrape may lie between the two questions.
    assert 0 < float(parse(top_pod[1])) < 0.25
    assert float(parse(top_pod[2])) == pytest.approx(float(parse(main["usage"]["memory"])), rel=0.1, abs=1 << 20)
    assert float(parse(top_node[3])) == pytest.approx(float(parse(machine["usage"]["memory"])), rel=0.1)


def _agrees(usage: dict[str, str], told: dict[str, Any], sampled: Sampled) -> None:
    """Within five in a hundred. Its end is told in whole seconds: the best of the second counts."""
    window = float(told["window"].removesuffix("s"))
    end = unix_seconds(told["timestamp"])
    ends = [end + part / 10 for part in range(-1, 12)]
    cores = float(parse(usage["cpu"]))
    assert any(cores == pytest.approx(sampled.cores(at - window, at), rel=0.05) for at in ends), (cores, window)
    least, most = sampled.working_set(end - 1, end + 2)
    memory = float(parse(usage["memory"]))
    assert least * 0.95 <= memory <= most * 1.05
