"""A control plane into which machines are let by token: what kubeadm makes in its clusters, and our manifest."""

import base64
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

from agent.kube import x509_facts
from hack.control_plane import ControlPlane
from hack.paths import REPOSITORY

TOKEN_ID, TOKEN_SECRET = "abcdef", "0123456789abcdef"
CLUSTER_INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info"


class Joining:
    """Of a plane that runs. Returns when a machine can join."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.token = f"{TOKEN_ID}.{TOKEN_SECRET}"
        ca = plane.client_ca.read_bytes()
        self.ca_hash = x509_facts.public_key_hash(x509_facts.certificates(ca)[0])
        plane.kubectl("apply", "-f", str(REPOSITORY / "config" / "cluster" / "join.yaml"))
        cluster = {"server": plane.url, "certificate-authority-data": base64.b64encode(ca).decode()}
        info = {"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}]}
        kubeconfig = f"--from-literal=kubeconfig={yaml.safe_dump(info)}"
        plane.kubectl("create", "configmap", "cluster-info", "--namespace=kube-public", kubeconfig)
        plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(_token()))
        deadline = time.monotonic() + 30
        while f"jws-kubeconfig-{TOKEN_ID}" not in plane.get(CLUSTER_INFO)["data"]:
            if time.monotonic() > deadline:
                raise TimeoutError("the controller manager did not sign cluster-info")
            time.sleep(0.1)

    def join(self, folder: Path, node: str, *flags: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """`edgelet join` with folders of its own; its kubeconfig is FOLDER/kubeconfig."""
        command = [
            *(sys.executable, "-m", "agent", "join", self.plane.url, f"--token={self.token}"),
            *(f"--nodename={node}", f"--root-dir={folder / 'root'}", f"--kubeconfig={folder / 'kubeconfig'}"),
        ]
        if not any(flag.startswith(("--ca-", "--discovery")) for flag in flags):
            command.append(f"--ca-cert-hash={self.ca_hash}")
        return subprocess.run(
            [*command, *flags],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "KUBECONFIG": ""},
            capture_output=True,
            text=True,
            check=check,
            timeout=60,
        )

    def waiting_requests(self, node: str) -> list[str]:
        """Names of the node's requests for a serving certificate that nobody has judged."""
        items = self.plane.get("/apis/certificates.k8s.io/v1/certificatesigningrequests")["items"]
        return [
            item["metadata"]["name"]
            for item in items
            if item["spec"]["username"] == f"system:node:{node}"
            and item["spec"]["signerName"] == "kubernetes.io/kubelet-serving"
            and not item["status"].get("conditions")
        ]


def _token() -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": f"bootstrap-token-{TOKEN_ID}", "namespace": "kube-system"},
        "stringData": {
            "token-id": TOKEN_ID,
            "token-secret": TOKEN_SECRET,
            "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "true",
            "auth-extra-groups": "system:bootstrappers:edgelet",
        },
    }
