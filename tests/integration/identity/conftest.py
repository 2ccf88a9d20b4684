"""A control plane of its own whose certificates are good for seconds, into which machines are let by token."""

import base64
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from agent.kube import x509_facts
from hack.control_plane import ControlPlane
from hack.paths import REPOSITORY
from hack.workspace import Workspace
from tests.integration.support.waiting import wait_until

LIFE_S = 30
"""Of a certificate, beside the five minutes of the past that the signer adds."""
TOKEN_ID, TOKEN_SECRET = "abcdef", "0123456789abcdef"


@dataclass
class Joining:
    plane: ControlPlane
    token: str
    ca_hash: str

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
            env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=check,
            timeout=60,
        )


@pytest.fixture(scope="package")
def joining(workspace: Workspace) -> Iterator[Joining]:
    plane = ControlPlane(workspace.folder / "joining-plane", signing_duration=f"{LIFE_S}s")
    plane.start()
    try:
        plane.kubectl("apply", "-f", str(REPOSITORY / "config" / "cluster" / "join.yaml"))
        # What kubeadm makes in a cluster of its own.
        ca = plane.client_ca.read_bytes()
        cluster = {"server": plane.url, "certificate-authority-data": base64.b64encode(ca).decode()}
        info = {"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}]}
        plane.kubectl(
            *("create", "configmap", "cluster-info", "--namespace=kube-public"),
            f"--from-literal=kubeconfig={yaml.safe_dump(info)}",
        )
        plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(_token()))
        path = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
        wait_until(lambda: f"jws-kubeconfig-{TOKEN_ID}" in plane.get(path)["data"])
        ca_hash = x509_facts.public_key_hash(x509_facts.certificates(ca)[0])
        yield Joining(plane, f"{TOKEN_ID}.{TOKEN_SECRET}", ca_hash)
    finally:
        plane.stop()


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
