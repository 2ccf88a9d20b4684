"""Pods that name a RuntimeClass, and pods with users of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.agent.edge import Edge, container, pod
from tests.integration.support.waiting import wait_until


def runtime_class(name: str, handler: str) -> dict[str, Any]:
    return {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": handler}


@pytest.fixture
def classes(every_guest: Edge) -> Iterator[Edge]:
    every_guest.apply(runtime_class("plain", "runc"), runtime_class("unknown", "nobody"))
    yield every_guest
    every_guest.kubectl("delete", "runtimeclass", "plain", "unknown")


def test_a_class_leads_to_its_handler(classes: Edge) -> None:
    classes.run(pod("fine", runtimeClassName="plain"), pod("odd", runtimeClassName="unknown"))
    classes.wait_ready("fine")

    def said() -> bool:
        return any(r == "FailedCreatePodSandBox" and '"nobody"' in m for r, m in classes.events("odd"))

    wait_until(said, 20, what="the unknown handler is said")
    assert classes.pod("odd")["status"]["phase"] == "Pending"


def test_a_pod_has_users_of_its_own_where_the_runtime_makes_them(every_guest: Edge) -> None:
    mounts = [{"name": "data", "mountPath": "/data"}, {"name": "words", "mountPath": "/words"}]
    script = (
        "set -e; cat /proc/self/uid_map; touch /data/mine; stat -c 'owner %u' /data/mine; "
        "stat -c 'owner %u' /words/hello /etc/hosts; cat /words/hello; echo bye > /dev/termination-log"
    )
    every_guest.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "words"}, "data": {"hello": "hello"}}
    )
    volumes = [{"name": "data", "emptyDir": {}}, {"name": "words", "configMap": {"name": "words"}}]
    every_guest.run(
        pod(
            "apart",
            container(script, volumeMounts=mounts),
            hostUsers=False,
            restartPolicy="Never",
            volumes=volumes,
        )
    )
    handlers = every_guest.agent.node_object()["status"].get("runtimeHandlers", ())
    if any(one["name"] == "" and one["features"].get("userNamespaces") for one in handlers):
        ended = every_guest.wait_phase("apart", "Succeeded")
        first, *rest = every_guest.log("apart").splitlines()
        assert first.split() == ["0", "65536", "65536"]
        assert rest == ["owner 0", "owner 0", "owner 0", "hello"]
        assert ended["status"]["containerStatuses"][0]["state"]["terminated"]["message"] == "bye\n"
    else:
        why = "can't set `spec.hostUsers: false`, runtime does not support user namespaces"
        wanted = ("FailedCreatePodSandBox", f"Failed to create pod sandbox: {why}")
        wait_until(lambda: wanted in every_guest.events("apart"), 20, what="it is said")
