"""A node's pages of figures, and a pod that uses what they tell."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.integration.agent.edge import Edge, container, pod

BUSY = (
    "trap 'exit 0' TERM; dd if=/dev/zero of=/cache/file bs=1M count=8 2>/dev/null;"
    " dd if=/dev/zero of=/written bs=1M count=3 2>/dev/null; while :; do :; done"
)
LIMITS = {"limits": {"cpu": "200m", "memory": "64Mi"}}


def page(edge: Edge, path: str) -> str:
    """As an administrator, past the API server, which calls no node at a loopback address."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # a self-signed certificate, on loopback
    pki = edge.plane.client_ca.parent
    context.load_cert_chain(pki / "readiness.crt", pki / "readiness.key")
    url = f"https://127.0.0.1:{edge.agent.port}{path}"
    try:
        with urllib.request.urlopen(url, context=context, timeout=30) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{path}: {error.code} {error.read().decode()}") from error


def samples(edge: Edge, path: str) -> Iterator[Sample]:
    for family in text_string_to_metric_families(page(edge, path)):
        yield from family.samples


def run_busy(edge: Edge) -> str:
    """The container's cgroup, relative to a hierarchy's top."""
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    busy = container(
        BUSY,
        resources=LIMITS,
        readinessProbe=probe,
        volumeMounts=[{"name": "cache", "mountPath": "/cache"}],
    )
    edge.run(pod("busy", busy, volumes=[{"name": "cache", "emptyDir": {}}]))
    edge.wait_ready("busy")
    own = next(s for s in samples(edge, "/metrics/cadvisor") if s.labels.get("container") == "main")
    return str(own.labels["id"]).lstrip("/")
