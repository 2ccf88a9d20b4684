"""What a restarted agent believes of a container that ran before it."""

from __future__ import annotations

from typing import Any

import pytest

from agent.model.status import ContainerStatus, Phase, PodStatus, State
from agent.pods.adopted import last_health
from agent.pods.knowledge import Health
from tests.unit.pods.scene import record

READY, STARTED, NOTHING = Health(True, True), Health(True, False), Health(False, False)


def recorded(container_id: str, *, started: bool, ready: bool, init: bool = False) -> PodStatus:
    status = ContainerStatus(
        name="main",
        image="busybox",
        state=State(),
        lastState=State(),
        restartCount=0,
        started=started,
        ready=ready,
        containerID=f"containerd://{container_id}",
    )
    where: dict[str, Any] = {"initContainerStatuses" if init else "containerStatuses": (status,)}
    return PodStatus(phase=Phase.RUNNING, **where)


@pytest.mark.parametrize(
    ("own", "api", "expected"),
    [
        (None, None, NOTHING),
        (recorded("c1", started=True, ready=True), None, READY),
        (recorded("c1", started=True, ready=True, init=True), None, READY),
        (recorded("c1", started=True, ready=False), ("c1", True), STARTED),
        # The record knows another run of the container only: the API server may know this one.
        (recorded("c0", started=True, ready=True), None, NOTHING),
        (recorded("c0", started=True, ready=True), ("c1", True), READY),
        (None, ("c1", False), STARTED),
        (None, ("c0", True), NOTHING),
    ],
)
def test_the_record_is_believed_first_and_only_of_the_same_container(
    own: PodStatus | None, api: tuple[str, bool] | None, expected: Health
) -> None:
    told: dict[str, Any] = {}
    if api is not None:
        status = {"name": "main", "containerID": f"containerd://{api[0]}", "started": True, "ready": api[1]}
        told = {"containerStatuses": [status]}
    assert last_health("c1", own, record(status=told).pod) == expected
