import json
from typing import Any

import pytest

from agent.pods.translate import identity
from agent.policies.pod import Policies
from tests.unit.pods.pods import container_pod, make_pod


def annotations(meta: dict[str, Any] | None = None, attempt: int = 0, **fields: Any) -> dict[str, str]:
    pod = container_pod(meta, **fields)
    return identity.container_annotations(pod, pod.spec.containers[0], attempt)


def test_the_hash_changes_with_name_and_image_only() -> None:
    def hashed(**fields: Any) -> str:
        return identity.spec_hash(container_pod(**fields).spec.containers[0])

    assert hashed() == hashed(env=[{"name": "A", "value": "b"}], resources={"limits": {"cpu": 1}})
    assert len({hashed(), hashed(image="busybox:2"), hashed(name="other"), hashed(name="mainb", image="usybox")}) == 4


def test_user_labels_cannot_pose_as_identity() -> None:
    pod = make_pod({"labels": {"app": "x", "io.kubernetes.pod.uid": "forged", "io.edgelet.node": "forged"}})
    assert identity.sandbox_labels(pod, "edge-1") == {
        "app": "x",
        "io.kubernetes.pod.name": "web",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": "u-1",
        "io.edgelet.node": "edge-1",
    }


def test_container_labels_are_identity_alone() -> None:
    pod = make_pod({"labels": {"app": "x"}})
    assert identity.container_labels(pod, pod.spec.containers[0], "edge-1") == {
        "io.kubernetes.container.name": "main",
        "io.kubernetes.pod.name": "web",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": "u-1",
        "io.edgelet.node": "edge-1",
    }


@pytest.mark.parametrize(
    ("own", "source"), [({"note": "n"}, "api"), ({"note": "n", "kubernetes.io/config.source": "file"}, "file")]
)
def test_sandbox_annotations_are_the_pods_and_where_it_came_from(own: dict[str, str], source: str) -> None:
    assert identity.sandbox_annotations(make_pod({"annotations": own}), "2026-01-01T00:00:00Z") == {
        "note": "n",
        "kubernetes.io/config.source": source,
        "kubernetes.io/config.seen": "2026-01-01T00:00:00Z",
    }


def test_sandbox_annotations_have_the_bandwidths_that_hold_and_no_others() -> None:
    own = {"kubernetes.io/ingress-bandwidth": "10Mbit", "kubernetes.io/egress-bandwidth": "5M"}
    found = identity.sandbox_annotations(make_pod({"annotations": own}), "", Policies(egress_bandwidth=20_000_000))
    assert "kubernetes.io/ingress-bandwidth" not in found
    assert found["kubernetes.io/egress-bandwidth"] == "20000000"


def test_container_annotations_hold_what_ending_it_needs() -> None:
    found = annotations(
        {"deletionGracePeriodSeconds": 5},
        3,
        terminationMessagePath="/dev/log",
        terminationMessagePolicy="FallbackToLogsOnError",
        lifecycle={"preStop": {"exec": {"command": ["sh", "-c", "bye"]}}},
        ports=[{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP", "hostPort": 5353, "name": "dns"}],
    )
    assert json.loads(found.pop("io.kubernetes.container.preStopHandler")) == {"exec": {"command": ["sh", "-c", "bye"]}}
    assert json.loads(found.pop("io.kubernetes.container.ports")) == [
        {"containerPort": 80, "protocol": "TCP"},
        {"containerPort": 53, "protocol": "UDP", "hostPort": 5353, "name": "dns"},
    ]
    assert found.pop("io.kubernetes.container.hash")
    assert found.pop("io.edgelet.image") == "busybox"
    assert found == {
        "io.kubernetes.container.restartCount": "3",
        "io.kubernetes.container.terminationMessagePath": "/dev/log",
        "io.kubernetes.container.terminationMessagePolicy": "FallbackToLogsOnError",
        "io.kubernetes.pod.terminationGracePeriod": "30",
        "io.kubernetes.pod.deletionGracePeriod": "5",
    }


def test_a_plain_container_has_no_hook_ports_or_deletion_annotation() -> None:
    assert not {
        "io.kubernetes.container.preStopHandler",
        "io.kubernetes.container.ports",
        "io.kubernetes.pod.deletionGracePeriod",
    } & set(annotations())


def test_an_http_hook_spells_its_defaults_out() -> None:
    found = annotations(lifecycle={"preStop": {"httpGet": {"port": "web", "host": "h"}}})
    assert json.loads(found["io.kubernetes.container.preStopHandler"]) == {
        "httpGet": {"path": "/", "port": "web", "scheme": "HTTP", "host": "h"}
    }


def test_logs_lie_where_shippers_look() -> None:
    assert identity.pod_log_directory("/var/log/pods", make_pod()) == "/var/log/pods/shop_web_u-1"
    assert identity.container_log_path("main", 2) == "main/2.log"
