"""What a pod takes of the node."""

from __future__ import annotations

from typing import Any

import pytest

from agent.pods.admission.claim import Claim, HostPort, claim, host_ports, pod_requests
from agent.pods.qos import QosClass
from tests.unit.pods.pods import make_pod


def asking(name: str, requests: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "i", "resources": {"requests": requests or {}}, **fields}


REQUESTS = {
    "main containers add up": ({"containers": [asking("a", {"cpu": "250m"}), asking("b", {"cpu": 1})]}, {"cpu": 1250}),
    "a limit alone is a request": (
        {"containers": [{"name": "a", "image": "i", "resources": {"limits": {"memory": "1Mi"}}}]},
        {"memory": 1 << 20},
    ),
    "fractions are rounded up": (
        {"containers": [asking("a", {"cpu": "0.1m", "memory": "0.5"})]},
        {"cpu": 1, "memory": 1},
    ),
    "of init containers only the largest counts": (
        {
            "containers": [asking("a", {"cpu": "100m", "memory": 5})],
            "initContainers": [asking("i", {"cpu": "300m"}), asking("j", {"cpu": "200m", "memory": 3})],
        },
        {"cpu": 300, "memory": 5},
    ),
    "a sidecar stays beside the main containers": (
        {
            "containers": [asking("a", {"cpu": "100m"})],
            "initContainers": [asking("s", {"cpu": "50m"}, restartPolicy="Always")],
        },
        {"cpu": 150},
    ),
    "an init container runs beside the sidecars before it": (
        {
            "containers": [asking("a", {"cpu": "100m"})],
            "initContainers": [
                asking("s", {"cpu": "50m"}, restartPolicy="Always"),
                asking("i", {"cpu": "200m"}),
                asking("t", {"cpu": "70m"}, restartPolicy="Always"),
            ],
        },
        {"cpu": 250},
    ),
    "overhead comes on top": (
        {"containers": [asking("a", {"cpu": "100m"})], "overhead": {"cpu": "10m", "memory": 7}},
        {"cpu": 110, "memory": 7},
    ),
    "zero asks for nothing": ({"containers": [asking("a", {"cpu": 0})]}, {}),
    "any other resource is counted in pieces": ({"containers": [asking("a", {"x.io/gpu": "2"})]}, {"x.io/gpu": 2}),
}


@pytest.mark.parametrize(("spec", "wanted"), REQUESTS.values(), ids=REQUESTS)
def test_requests_of_a_pod(spec: dict[str, Any], wanted: dict[str, int]) -> None:
    assert pod_requests(make_pod(**spec)) == wanted


def test_a_quantity_that_cannot_be_read_is_said() -> None:
    with pytest.raises(ValueError, match="much"):
        claim(make_pod(containers=[asking("a", {"cpu": "much"})]))


PORTS = {
    "without hostPort": ({}, {"containerPort": 80}, []),
    "with hostPort": ({}, {"containerPort": 80, "hostPort": 8080}, [HostPort("0.0.0.0", "TCP", 8080)]),
    "of one address": (
        {},
        {"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1", "protocol": "UDP"},
        [HostPort("10.0.0.1", "UDP", 8080)],
    ),
    "on the host's network": ({"hostNetwork": True}, {"containerPort": 80}, [HostPort("0.0.0.0", "TCP", 80)]),
}


@pytest.mark.parametrize(("spec", "port", "wanted"), PORTS.values(), ids=PORTS)
def test_host_ports_of_a_pod(spec: dict[str, Any], port: dict[str, Any], wanted: list[HostPort]) -> None:
    main = {"name": "a", "image": "i", "ports": [port]}
    assert list(host_ports(make_pod(containers=[main], **spec))) == wanted


def test_a_sidecar_holds_host_ports_and_an_init_container_does_not() -> None:
    port = [{"containerPort": 80, "hostPort": 81}]
    one = asking("s", ports=port, restartPolicy="Always")
    assert len(list(host_ports(make_pod(initContainers=[one])))) == 1
    assert not list(host_ports(make_pod(initContainers=[asking("i", ports=port)])))


@pytest.mark.parametrize(
    ("one", "other", "collide"),
    [
        (("0.0.0.0", "TCP", 80), ("10.0.0.1", "TCP", 80), True),
        (("10.0.0.2", "TCP", 80), ("10.0.0.1", "TCP", 80), False),
        (("10.0.0.1", "TCP", 80), ("10.0.0.1", "TCP", 80), True),
        (("0.0.0.0", "TCP", 80), ("0.0.0.0", "UDP", 80), False),
        (("0.0.0.0", "TCP", 80), ("0.0.0.0", "TCP", 81), False),
    ],
)
def test_host_ports_collide(one: tuple[str, str, int], other: tuple[str, str, int], collide: bool) -> None:
    assert HostPort(*one).collides(HostPort(*other)) is collide
    assert HostPort(*other).collides(HostPort(*one)) is collide


def test_what_makes_a_pod_critical() -> None:
    assert not claim(make_pod(priority=1_000_000)).critical
    assert claim(make_pod(priority=2_000_000_000)).critical
    static = make_pod({"annotations": {"kubernetes.io/config.source": "file"}})
    assert claim(static) == Claim(critical=True, qos=QosClass.BEST_EFFORT)
