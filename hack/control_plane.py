"""A real control plane on loopback: etcd, kube-apiserver, controller-manager and scheduler, ready in a few seconds.

Authorization is Node and RBAC with NodeRestriction, as on a production cluster, so an agent can be tried with the
identity that it will really have. Ports are whatever is free: several can run side by side. All is in one folder.
"""

import base64
import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from hack import binaries
from hack.pki import Authority, Pair, new_key
from hack.processes import Daemon, free_port

ISSUER = "https://kubernetes.default.svc"
SERVICE_RANGE = "10.96.0.0/16"
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    # Nodes only: what an agent asks of the API server is a figure worth knowing, the rest is noise.
    "rules": [{"level": "Metadata", "userGroups": ["system:nodes"]}, {"level": "None"}],
}


class ControlPlane:
    """`start` returns when pods can be created. `cut_off` and `reconnect` play a partition, for all clients at once."""

    def __init__(self, folder: Path, advertise: str = "127.0.0.1", *, signing_duration: str = "") -> None:
        """`advertise`: an address of this machine at which nodes and pods reach the API server. `signing_duration`: how
        long the certificates are good that it signs for nodes, 5 minutes of the past not counted."""
        self.folder = folder
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.audit_log = folder / "audit.log"
        self.client_ca = folder / "pki" / "ca.crt"
        self._advertise = advertise
        self._signing_duration = signing_duration
        folder.mkdir(parents=True, exist_ok=True)
        self._make_pki()
        self.admin_kubeconfig = self.kubeconfig("admin", "kubernetes-admin", ["system:masters"])
        self.etcd, etcd_url = self._etcd()
        self.api_server = self._api_server(etcd_url)
        self.controller_manager = self._controller_manager()
        self.scheduler = self._scheduler()

    def start(self) -> None:
        """Raises DaemonError with the log of the part that failed."""
        self.etcd.start()
        self.api_server.start()
        self.api_server.wait_ready(lambda: self._answers("/readyz"), 60)
        self.controller_manager.start()
        self.scheduler.start()
        # Without its default service account no pod is admitted to a namespace.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self.controller_manager.wait_ready(lambda: self._answers(account), 60)

    def stop(self) -> None:
        """At once: nothing here is worth a graceful end, which takes kube-apiserver many seconds."""
        for daemon in (self.scheduler, self.controller_manager, self.api_server, self.etcd):
            daemon.kill()

    def cut_off(self) -> None:
        """The API server is gone, connections break; its objects are kept."""
        self.api_server.kill()

    def reconnect(self) -> None:
        """The API server is back on the same address with the same objects."""
        self.start()

    def node_kubeconfig(self, node: str) -> Path:
        """The identity that the Node authorizer knows: user system:node:NAME in group system:nodes."""
        return self.kubeconfig(f"node-{node}", f"system:node:{node}", ["system:nodes"])

    def kubeconfig(self, name: str, user: str, groups: Sequence[str] = ()) -> Path:
        """NAME.conf for a user of any groups; made once."""
        path = self.folder / f"{name}.conf"
        if not path.exists():
            _write(path, yaml.safe_dump(self._kubeconfig(user, self._authority.client(user, groups))).encode())
        return path

    def serving_certificate(self, folder: Path, name: str, hosts: Sequence[str]) -> tuple[Path, Path]:
        """A certificate of the cluster's CA for these names and addresses, and its key: two files in the folder."""
        pair = self._authority.server(name, hosts)
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        _write(certificate, pair.certificate)
        _write(key, pair.key)
        return certificate, key

    def client(self, user: str, groups: Sequence[str] = ()) -> Pair:
        """A client certificate of the cluster's CA."""
        return self._authority.client(user, groups)

    def kubectl(self, *args: str, kubeconfig: Path | None = None, stdin: str | None = None, check: bool = True) -> str:
        """Standard output. Raises CalledProcessError when kubectl fails, unless `check` is off."""
        done = subprocess.run(
            [binaries.find("kubectl"), "--kubeconfig", kubeconfig or self.admin_kubeconfig, *args],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if check and done.returncode != 0:
            raise subprocess.CalledProcessError(done.returncode, ["kubectl", *args], done.stdout, done.stderr)
        return done.stdout

    def get(self, path: str) -> dict[str, Any]:
        """What the API server has at the path, as an admin. Raises URLError. For what is polled: no process a look."""
        with urllib.request.urlopen(self.url + path, context=self.tls, timeout=10) as answer:
            return dict(json.load(answer))

    def _make_pki(self) -> None:
        self._authority = Authority("kubernetes-ca")
        front_proxy = Authority("front-proxy-ca")
        self._write_pair("ca", self._authority.pair)
        self._write_pair("front-proxy-ca", front_proxy.pair)
        hosts = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1", "10.96.0.1"]
        self._write_pair("apiserver", self._authority.server("kube-apiserver", [*hosts, self._advertise]))
        kubelet_client = self._authority.client("kube-apiserver-kubelet-client", ["system:masters"])
        self._write_pair("kubelet-client", kubelet_client)
        self._write_pair("front-proxy", front_proxy.client("front-proxy"))
        admin = self._authority.client("readiness", ["system:masters"])
        self._write_pair("readiness", admin)
        _write(self._path("sa.key"), new_key())
        self.tls = ssl.create_default_context(cafile=str(self._path("ca.crt")))
        self.tls.load_cert_chain(self._path("readiness.crt"), self._path("readiness.key"))

    def _etcd(self) -> tuple[Daemon, str]:
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        command: list[str | Path] = [
            binaries.find("etcd"),
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",  # nothing here outlives a power cut
        ]
        return Daemon("etcd", command, self.folder), client

    def _api_server(self, etcd_url: str) -> Daemon:
        policy = self.folder / "audit.yaml"
        policy.write_text(yaml.safe_dump(AUDIT_POLICY))
        is_loopback = self._advertise.startswith("127.")
        path = self._path
        command: list[str | Path] = [
            binaries.find("kube-apiserver"),
            f"--etcd-servers={etcd_url}",
            f"--secure-port={self.port}",
            f"--bind-address={'127.0.0.1' if is_loopback else '0.0.0.0'}",
            f"--advertise-address={self._advertise}",
            # A loopback address can't be an Endpoint; without it, nothing reaches it through a Service either.
            *(["--endpoint-reconciler-type=none"] if is_loopback else []),
            f"--tls-cert-file={path('apiserver.crt')}",
            f"--tls-private-key-file={path('apiserver.key')}",
            f"--client-ca-file={path('ca.crt')}",
            f"--kubelet-client-certificate={path('kubelet-client.crt')}",
            f"--kubelet-client-key={path('kubelet-client.key')}",
            "--kubelet-preferred-address-types=InternalIP,Hostname",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={path('sa.key')}",
            f"--service-account-signing-key-file={path('sa.key')}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--enable-bootstrap-token-auth=true",
            f"--requestheader-client-ca-file={path('front-proxy-ca.crt')}",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={path('front-proxy.crt')}",
            f"--proxy-client-key-file={path('front-proxy.key')}",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-mode=batch",
            "--audit-log-batch-max-wait=1s",
            "--shutdown-send-retry-after=false",
            "--profiling=false",
        ]
        return Daemon("kube-apiserver", command, self.folder)

    def _controller_manager(self) -> Daemon:
        command: list[str | Path] = [
            binaries.find("kube-controller-manager"),
            *self._own_identity("system:kube-controller-manager"),
            f"--service-account-private-key-file={self._path('sa.key')}",
            f"--root-ca-file={self._path('ca.crt')}",
            f"--cluster-signing-cert-file={self._path('ca.crt')}",
            f"--cluster-signing-key-file={self._path('ca.key')}",
            "--use-service-account-credentials=true",
            # The two that joining by token needs are off unless asked for.
            "--controllers=*,bootstrap-signer-controller,token-cleaner-controller",
            *([f"--cluster-signing-duration={self._signing_duration}"] if self._signing_duration else []),
        ]
        return Daemon("kube-controller-manager", command, self.folder)

    def _scheduler(self) -> Daemon:
        command: list[str | Path] = [binaries.find("kube-scheduler"), *self._own_identity("system:kube-scheduler")]
        return Daemon("kube-scheduler", command, self.folder)

    def _own_identity(self, user: str) -> list[str]:
        path = self.kubeconfig(user.removeprefix("system:"), user)
        return [
            f"--kubeconfig={path}",
            f"--authentication-kubeconfig={path}",
            f"--authorization-kubeconfig={path}",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            "--leader-elect=false",
        ]

    def _kubeconfig(self, user: str, pair: Pair) -> dict[str, object]:
        cluster = {"server": self.url, "certificate-authority-data": _base64(self._authority.pair.certificate)}
        identity = {"client-certificate-data": _base64(pair.certificate), "client-key-data": _base64(pair.key)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": user, "user": identity}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": user}}],
            "current-context": "local",
        }

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(self.url + path, context=self.tls, timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _path(self, name: str) -> Path:
        return self.folder / "pki" / name

    def _write_pair(self, name: str, pair: Pair) -> None:
        _write(self._path(f"{name}.crt"), pair.certificate)
        _write(self._path(f"{name}.key"), pair.key)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
