"""The words of `kubectl get pods`."""

from __future__ import annotations

from typing import Any

import pytest

from agent.server.local_api.pod_row import pod_cells
from agent.server.local_api.tables import human_duration


def cells(status: dict[str, Any], spec: dict[str, Any] | None = None, **meta: str) -> list[object]:
    pod = {
        "metadata": {"name": "p", **meta},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}], **(spec or {})},
        "status": status,
    }
    return pod_cells(pod, lambda time: "3m" if time else "<unknown>")


def container(name: str = "a", restarts: int = 0, ready: bool = False, **state: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "ready": ready, "restartCount": restarts}


def running(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"phase": "Running", "containerStatuses": list(containers)}


def begun(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"phase": "Pending", "initContainerStatuses": list(containers)}


RUNNING = container(ready=True, running={})


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({"phase": "Pending"}, ("0/2", "Pending", "0")),
        (running(RUNNING, RUNNING), ("2/2", "Running", "0")),
        (
            running(container(waiting={"reason": "CrashLoopBackOff"}, restarts=4), RUNNING),
            ("1/2", "CrashLoopBackOff", "4"),
        ),
        ({"phase": "Failed", "reason": "Evicted"}, ("0/2", "Evicted", "0")),
        (running(container(terminated={"exitCode": 3})), ("0/2", "ExitCode:3", "0")),
        (running(container(terminated={"exitCode": 0, "signal": 9})), ("0/2", "Signal:9", "0")),
        (
            running(container(terminated={"exitCode": 0, "reason": "Completed"}), RUNNING),
            ("1/2", "NotReady", "0"),
        ),
        (
            begun(container("i", terminated={"exitCode": 1, "reason": "Error"}, restarts=2)),
            ("0/2", "Init:Error", "2"),
        ),
        (begun(container("i", running={})), ("0/2", "Init:0/1", "0")),
    ],
)  # fmt: skip
def test_the_status_word_is_kubernetes_own(status: dict[str, Any], told: tuple[str, ...]) -> None:
    assert tuple(cells(status, {"initContainers": [{"name": "i"}]})[1:4]) == told


def test_a_sidecar_counts_among_the_containers() -> None:
    sidecar = {**container("s", ready=True, running={}), "started": True}
    status = {"phase": "Running", "initContainerStatuses": [sidecar], "containerStatuses": [RUNNING, RUNNING]}
    assert cells(status, {"initContainers": [{"name": "s", "restartPolicy": "Always"}]})[1] == "3/3"


def test_a_deletion_has_the_last_word_and_restarts_have_an_age() -> None:
    ended = {**RUNNING, "restartCount": 2, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:00Z"}}}
    told = cells({"phase": "Running", "containerStatuses": [ended]}, deletionTimestamp="2026-01-01T00:00:00Z")
    assert told[2:4] == ["Terminating", "2 (3m ago)"]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (135, "2m15s"), (3600, "60m"), (4 * 3600 + 60, "4h1m"), (9 * 3600, "9h"),
     (50 * 3600, "2d2h"), (400 * 86400, "400d"), (3 * 365 * 86400, "3y"), (-5, "<invalid>")],
)  # fmt: skip
def test_ages_are_written_as_kubernetes_writes_them(seconds: float, told: str) -> None:
    assert human_duration(seconds) == told
