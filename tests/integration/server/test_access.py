"""Who may use a node's API, as a real API server says: tokens, certificates, a cut link, a crowd of strangers."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from hack.control_plane import ControlPlane
from hack.pki import Authority, Pair
from tests.integration.agent.edge import Edge, pod
from tests.integration.support.waiting import wait_until

CROWD = 1000
MB = 1024 * 1024

ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {name}}}
rules:
- apiGroups: [""]
  resources: [{resources}]
  verbs: [get]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}}}
subjects: [{subject}]
"""


class Caller:
    def __init__(self, port: int, pair: Pair | None = None, token: str = "", folder: Path = Path()) -> None:
        self._port = port
        self._token = token
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        if pair is not None:
            file = folder / "pair.pem"
            file.write_bytes(pair.certificate + pair.key)
            self._context.load_cert_chain(file)

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, context=self._context, timeout=20)
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def connect(self) -> ssl.SSLSocket:
        return self._context.wrap_socket(socket.create_connection(("127.0.0.1", self._port), timeout=20))


def serving(edge: Edge) -> int:
    """Its port, once it is open."""

    def is_open() -> bool:
        try:
            return Caller(edge.agent.port).get("/healthz")[0] == 401
        except OSError:
            return False

    wait_until(is_open)
    return edge.agent.port


def allow(edge: Edge, name: str, resources: str, subject: str) -> None:
    name = f"{name}-{edge.namespace}"
    edge.plane.kubectl("apply", "--filename=-", stdin=ROLE.format(name=name, resources=resources, subject=subject))


def account(edge: Edge, name: str) -> tuple[str, str]:
    """A service account's token, and the account as a subject."""
    edge.kubectl("create", "serviceaccount", name)
    token = edge.kubectl("create", "token", name).strip()
    return token, f"{{kind: ServiceAccount, name: {name}, namespace: {edge.namespace}}}"


def test_tokens_get_what_the_cluster_grants_also_over_a_cut(edge: Edge, control_plane: ControlPlane) -> None:
    edge.run(pod("web"))
    edge.wait_ready("web")
    port = serving(edge)
    narrow, subject = account(edge, "narrow")
    allow(edge, "narrow", "nodes/pods, nodes/healthz", subject)
    wide, subject = account(edge, "wide")
    allow(edge, "wide", "nodes/proxy", subject)
    weak, _ = account(edge, "weak")
    log = f"/containerLogs/{edge.namespace}/web/main"

    wait_until(lambda: Caller(port, token=narrow).get("/pods")[0] == 200, timeout=40)
    assert Caller(port, token=narrow).get("/healthz") == (200, "ok")
    assert Caller(port, token=narrow).get(log)[0] == 403
    wait_until(lambda: Caller(port, token=wide).get(log)[0] == 200, timeout=40)
    assert Caller(port, token=wide).get("/pods")[0] == 200
    assert Caller(port, token=wide).get(f"/run/{edge.namespace}/web/main?cmd=id", "POST")[0] == 403  # it may only get
    user = f"system:serviceaccount:{edge.namespace}:weak"
    refused = f"Forbidden (user={user}, verb=get, resource=nodes, subresource(s)=[pods proxy])"
    assert Caller(port, token=weak).get("/pods") == (403, refused)
    assert Caller(port, token=narrow + "x").get("/pods") == (401, "Unauthorized")
    assert Caller(port).get("/pods") == (401, "Unauthorized")

    control_plane.cut_off()
    try:
        assert Caller(port, token=narrow).get("/pods")[0] == 200
        assert Caller(port, token=wide).get(log)[0] == 200
        status, text = Caller(port, token=wide).get("/stats/summary")
        assert (status, text.rpartition(": ")[2]) == (403, "the API server does not answer")
        new = (401, "Unauthorized: the API server does not answer")
        assert Caller(port, token="never-seen").get("/pods") == new
        admin = control_plane.client("ops", ["system:masters"])
        assert Caller(port, admin, folder=edge.agent.folder).get("/configz")[0] == 200
    finally:
        control_plane.reconnect()


def test_certificates_are_the_clusters_or_nothing(edge: Edge, control_plane: ControlPlane, tmp_path: Path) -> None:
    port = serving(edge)
    foreign = Authority("kubernetes-ca").client("kubernetes-admin", ["system:masters"])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Caller(port, foreign, folder=tmp_path).get("/healthz")
    other = control_plane.client("scraper", ["monitoring"])
    assert Caller(port, other, folder=tmp_path).get("/metrics/resource")[0] == 403
    allow(edge, "scraper", "nodes/healthz", "{kind: Group, name: monitoring, apiGroup: rbac.authorization.k8s.io}")
    wait_until(lambda: Caller(port, other, folder=tmp_path).get("/healthz")[0] == 200, timeout=40)
    node = control_plane.client(f"system:node:{edge.node}", ["system:nodes"])
    assert Caller(port, node, folder=tmp_path).get("/pods")[0] == 403


@contextmanager
def crowd(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Half of them silent, half of them after a handshake with half a request."""
    caller = Caller(port)
    made: list[socket.socket] = []
    try:
        for number in range(count):
            if number % 2:
                made.append(socket.create_connection(("127.0.0.1", port), timeout=20))
            else:
                made.append(caller.connect())
                made[-1].sendall(b"GET /pods HTTP/1.1\r\nX: ")
        yield made
    finally:
        for one in made:
            one.close()


def test_a_crowd_of_strangers_holds_nothing_up(edge: Edge) -> None:
    edge.run(pod("before"))
    edge.wait_ready("before")
    process = psutil.Process(edge.agent.pid)
    before = process.memory_info().rss
    with crowd(serving(edge), CROWD):
        assert process.memory_info().rss - before < 150 * MB
        assert process.num_fds() < 500
        began = time.monotonic()
        edge.run(pod("amid"))
        edge.wait_ready("amid")
        assert time.monotonic() - began < 15
        said = edge.plane.kubectl("exec", "amid", "--namespace", edge.namespace, "--", "echo", "well")
        assert said.strip() == "well"
        assert edge.kubectl("logs", "amid") == ""
    wait_until(lambda: process.num_fds() < 150, timeout=30)
    told = edge.agent.log.read_text(errors="replace")
    assert "Traceback" not in told
