"""What the whole of a pod was given, in its status."""

from __future__ import annotations

from typing import Any

import pytest

from agent.model.container import ResourceRequirements
from agent.model.status import ContainerStatus, Running, State
from agent.pods.status_resources import pod_resources
from tests.unit.pods.pods import make_pod


def asks(name: str, limits: dict[str, Any] | None = None, **requests: Any) -> dict[str, Any]:
    return {"name": name, "image": "busybox", "resources": {"limits": limits or {}, "requests": requests}}


SIDE = {**asks("side", cpu="50m", memory="32Mi"), "restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("spec", "allocated", "requests", "limits"),
    [
        ({"containers": [asks("a")]}, None, None, None),
        ({"containers": [asks("a", cpu="100m")]}, {"cpu": "100m"}, {"cpu": "100m"}, None),
        ({"containers": [asks("a", cpu="1m")]}, {"cpu": "1m"}, None, None),
        (
            {"containers": [asks("a", cpu="100m", memory="64Mi"), asks("b", cpu="900m", memory="64Mi")]},
            {"cpu": "1", "memory": "128Mi"},
            {"cpu": "1", "memory": "128Mi"},
            None,
        ),
        # A limit alone is a request too; a limit that only one container has is none of the pod's.
        (
            {"containers": [asks("a", {"cpu": "1", "memory": "1G"}), asks("b", {"memory": "500M"})]},
            {"cpu": "1", "memory": "1500M"},
            {"cpu": "1", "memory": "1500M"},
            {"memory": "1500M"},
        ),
        # Sidecars stay beside the main containers, another init container counts only where it needs more.
        (
            {"containers": [asks("a", cpu="100m")], "initContainers": [SIDE, asks("init", cpu="1")]},
            {"cpu": "1050m", "memory": "32Mi"},
            {"cpu": "1050m", "memory": "32Mi"},
            None,
        ),
        (
            {"containers": [asks("a", {"cpu": "1"}, cpu="100m")], "overhead": {"cpu": "250m", "memory": "120Mi"}},
            {"cpu": "350m", "memory": "120Mi"},
            {"cpu": "350m", "memory": "120Mi"},
            {"cpu": "1250m"},
        ),
        (
            {"containers": [asks("a", {"hugepages-2Mi": "4Mi"}, cpu="1")]},
            {"cpu": "1", "hugepages-2Mi": "4Mi"},
            {"cpu": "1"},
            None,
        ),
    ],
)
def test_the_pods_resources_are_what_its_containers_hold_together(
    spec: dict[str, Any], allocated: Any, requests: Any, limits: Any
) -> None:
    resources, all_of_it = pod_resources(make_pod(**spec), ())
    assert (all_of_it, resources.requests, resources.limits) == (allocated, requests, limits)


def test_a_container_counts_with_what_it_was_made_with() -> None:
    pod = make_pod(containers=[asks("a", cpu="2")])
    made = ContainerStatus(
        name="a", state=State(running=Running()), resources=ResourceRequirements(requests={"cpu": "1"})
    )
    assert pod_resources(pod, (made,))[1] == {"cpu": "1"}
