"""What a container's status repeats: resources, mounts and user, in the API's own words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.model.pod import Pod
from agent.model.status import ContainerStatus, PodStatus, ResourceHealth, ResourceStatus
from agent.pods.knowledge import Knowledge
from agent.pods.status import StatusContext, pod_status
from tests.unit.pods.observations import container, exited, observed, sandbox
from tests.unit.pods.pods import container_pod

ASKED = {"limits": {"cpu": "200m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}}


def told(
    pod: Pod, *found: Any, before: PodStatus | None = None, recursive: bool = False
) -> tuple[PodStatus, dict[str, Any]]:
    """The status, and its only container as the API server gets it."""
    context = StatusContext(("192.0.2.1",), 1_700_000_100.0, 5000.0, recursive_read_only=recursive)
    status = pod_status(pod, observed(sandbox(), *found), Knowledge(), before, context)
    wire: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(status.containerStatuses[0]))
    return status, wire


@pytest.mark.parametrize(
    ("asked", "resources", "allocated"),
    [
        (ASKED, ASKED, ASKED["requests"]),
        ({}, {}, None),
        ({"requests": {"cpu": "1"}}, {"requests": {"cpu": "1"}}, {"cpu": "1"}),
        # A manifest has not seen the API server's defaults.
        ({"limits": {"cpu": "1"}}, {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}, {"cpu": "1"}),
    ],
)
def test_a_container_tells_the_resources_that_it_was_given(
    asked: dict[str, Any], resources: dict[str, Any], allocated: dict[str, str] | None
) -> None:
    for found in (container(), exited()):
        wire = told(container_pod(resources=asked), found)[1]
        assert (wire["resources"], wire.get("allocatedResources")) == (resources, allocated)


def test_a_container_that_does_not_exist_has_no_resources() -> None:
    wire = told(container_pod(resources=ASKED))[1]
    assert "resources" not in wire
    assert "allocatedResources" not in wire


def test_a_resize_is_told_only_of_the_container_that_was_made_with_it() -> None:
    before, wire = told(container_pod(resources=ASKED), container())
    resized = container_pod(resources={"requests": {"cpu": "150m"}})
    assert told(resized, container(), before=before)[1]["resources"] == ASKED
    after = told(resized, container(attempt=1), before=before)[1]
    assert after["resources"] == {"requests": {"cpu": "150m"}}
    assert after["allocatedResources"] == {"cpu": "150m"}
    assert wire["allocatedResources"] == ASKED["requests"]


def test_a_status_from_before_it_told_resources_is_completed() -> None:
    old = PodStatus(
        phase=told(container_pod(), container())[0].phase,
        containerStatuses=(
            ContainerStatus(
                name="main", state=told(container_pod(), container())[0].containerStatuses[0].state,
                containerID="containerd://main-0",
            ),
        ),
    )  # fmt: skip
    assert told(container_pod(resources=ASKED), container(), before=old)[1]["resources"] == ASKED


@pytest.mark.parametrize(
    ("mount", "possible", "mode"),
    [
        ({}, True, None),
        ({"recursiveReadOnly": "Disabled"}, True, None),
        ({"readOnly": True}, True, "Disabled"),
        ({"readOnly": True, "recursiveReadOnly": "Disabled"}, True, "Disabled"),
        ({"readOnly": True, "recursiveReadOnly": "IfPossible"}, True, "Enabled"),
        ({"readOnly": True, "recursiveReadOnly": "IfPossible"}, False, "Disabled"),
        ({"readOnly": True, "recursiveReadOnly": "Enabled"}, True, "Enabled"),
        ({"readOnly": True, "recursiveReadOnly": "Enabled"}, False, "Disabled"),
    ],
)
def test_mounts_are_told_of_containers_that_run_and_that_wait(
    mount: dict[str, Any], possible: bool, mode: str | None
) -> None:
    wire = {"readOnly": True, "recursiveReadOnly": mode} if mode else {}
    pod = container_pod(volumeMounts=[{"name": "data", "mountPath": "/data", **mount}])
    for found in ((), (container(),)):
        assert told(pod, *found, recursive=possible)[1]["volumeMounts"] == [
            {"name": "data", "mountPath": "/data", **wire}
        ]


@pytest.mark.parametrize(
    ("user", "wire"),
    [
        (None, None),
        ((0, 0, ()), {"linux": {"uid": 0, "gid": 0}}),
        ((1000, 3000, (3000, 4000)), {"linux": {"uid": 1000, "gid": 3000, "supplementalGroups": [3000, 4000]}}),
    ],
)
def test_the_first_process_user_is_told_where_the_runtime_tells_it(
    user: tuple[int, int, tuple[int, ...]] | None, wire: dict[str, Any] | None
) -> None:
    assert told(container_pod(), container(user=user))[1].get("user") == wire


def test_the_health_of_a_container_s_devices_is_told_and_stays_once_they_are_given_back() -> None:
    health = {"main": (ResourceStatus("example.com/widget", (ResourceHealth("a", "Unhealthy"),)),)}
    context = StatusContext(("192.0.2.1",), 1_700_000_100.0, 5000.0, devices=health)
    status = pod_status(container_pod(), observed(sandbox(), container()), Knowledge(), None, context)
    expected = [{"name": "example.com/widget", "resources": [{"resourceID": "a", "health": "Unhealthy"}]}]
    assert msgspec.json.decode(msgspec.json.encode(status.containerStatuses[0]))["allocatedResourcesStatus"] == expected
    assert told(container_pod(), exited(), before=status)[1]["allocatedResourcesStatus"] == expected
    assert "allocatedResourcesStatus" not in told(container_pod(), container())[1]
