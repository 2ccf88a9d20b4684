"""The typed pod: the API server's defaults, and small questions about it."""

from __future__ import annotations

import pytest

from agent.model.container import Container
from agent.model.pod import decode_pod
from tests.unit.pods.pods import make_pod


def test_a_manifest_reads_like_an_object_that_the_api_server_defaulted() -> None:
    pod = decode_pod(b'{"metadata": {"name": "web"}, "spec": {"containers": [{"name": "main", "new": 1}]}, "x": 2}')
    assert (pod.spec.restartPolicy, pod.spec.terminationGracePeriodSeconds, pod.spec.dnsPolicy) == (
        "Always",
        30,
        "ClusterFirst",
    )
    (main,) = pod.spec.containers
    assert (main.terminationMessagePath, main.terminationMessagePolicy) == ("/dev/termination-log", "File")


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("busybox:1.36", "IfNotPresent"),
        ("host:5000/busybox", "Always"),
        ("host:5000/busybox:1", "IfNotPresent"),
        ("busybox@sha256:" + "0" * 64, "IfNotPresent"),
    ],
)
def test_the_pull_policy_follows_from_the_tag(image: str, policy: str) -> None:
    assert Container(name="main", image=image).pull_policy == policy
    assert Container(name="main", image=image, imagePullPolicy="Never").pull_policy == "Never"


def test_a_sidecar_is_an_init_container_that_always_restarts() -> None:
    assert Container(name="a", restartPolicy="Always").is_sidecar
    assert not Container(name="a").is_sidecar


def test_a_pod_is_named_with_its_namespace() -> None:
    assert make_pod().full_name == "shop/web"
