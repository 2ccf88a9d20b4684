"""A simulated pod is a function of time."""

from __future__ import annotations

from typing import Any

import pytest

from agent.model.pod import Pod, pod_from_dict
from agent.model.status import Phase, PodStatus
from agent.providers.simulated import Life, is_over, next_change, status

BEGUN = 1_700_000_000.0


def pod(policy: str = "Always", **spec: Any) -> Pod:
    spec = {"containers": [{"name": "main", "image": "i"}], "restartPolicy": policy, **spec}
    return pod_from_dict({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 2}, "spec": spec})


def life(run_s: float | None = None, exit_code: int = 0, stop_s: float | None = None) -> Life:
    return Life(BEGUN, 2.0, run_s, exit_code, None if stop_s is None else BEGUN + stop_s)


def at(seconds: float, what: Life, of: Pod | None = None) -> PodStatus:
    return status(of or pod(), what, "198.18.0.1", ("10.0.0.1",), BEGUN + seconds)


def test_it_is_pending_and_then_running_with_an_address() -> None:
    before, after = at(1.9, life()), at(2, life())
    assert (before.phase, before.podIP, before.containerStatuses[0].ready) == (Phase.PENDING, "", False)
    waiting = before.containerStatuses[0].state.waiting
    assert waiting is not None
    assert waiting.reason == "ContainerCreating"
    assert (after.phase, after.podIP, after.hostIP) == (Phase.RUNNING, "198.18.0.1", "10.0.0.1")
    assert (after.containerStatuses[0].ready, after.observedGeneration) == (True, 2)
    ready = after.condition("Ready")
    assert ready is not None
    assert (ready.status, ready.lastTransitionTime) == ("True", "2023-11-14T22:13:22Z")


def test_it_changes_when_it_starts_and_when_it_is_stopped_and_then_no_more() -> None:
    assert next_change(pod(), life(), BEGUN) == BEGUN + 2
    assert next_change(pod(), life(), BEGUN + 2) is None
    assert next_change(pod(), life(stop_s=9), BEGUN + 3) == BEGUN + 9
    assert next_change(pod(), life(stop_s=9), BEGUN + 9) is None


def test_what_ends_by_itself_is_started_again_and_counted() -> None:
    runs = life(run_s=10, exit_code=3)
    now = at(25, runs)
    main = now.containerStatuses[0]
    assert (now.phase, main.restartCount) == (Phase.RUNNING, 2)
    assert main.lastState.terminated is not None
    assert (main.lastState.terminated.exitCode, main.lastState.terminated.reason) == (3, "Error")
    assert main.lastState.terminated.containerID != main.containerID
    assert next_change(pod(), runs, BEGUN + 25) == BEGUN + 32


@pytest.mark.parametrize(
    ("policy", "exit_code", "phase"),
    [
        ("Never", 0, Phase.SUCCEEDED),
        ("Never", 3, Phase.FAILED),
        ("OnFailure", 0, Phase.SUCCEEDED),
        ("OnFailure", 3, Phase.RUNNING),
    ],
)
def test_the_restart_policy_holds(policy: str, exit_code: int, phase: Phase) -> None:
    runs = life(run_s=10, exit_code=exit_code)
    now = at(13, runs, pod(policy))
    assert now.phase is phase
    assert is_over(pod(policy), runs, BEGUN + 13) is phase.is_terminal
    if phase.is_terminal:
        ended = now.containerStatuses[0].state.terminated
        assert ended is not None
        assert (ended.exitCode, ended.finishedAt) == (exit_code, "2023-11-14T22:13:32Z")
        ready = now.condition("Ready")
        assert ready is not None
        assert (ready.status, ready.lastTransitionTime) == ("False", ended.finishedAt)
        assert next_change(pod(policy), runs, BEGUN + 13) is None
        # Deleted later, it stays as it ended.
        later = at(50, life(run_s=10, exit_code=exit_code, stop_s=40), pod(policy))
        assert later.containerStatuses[0].state.terminated == ended


def test_what_is_stopped_ends_in_order() -> None:
    now = at(9, life(stop_s=9))
    ended = now.containerStatuses[0].state.terminated
    assert ended is not None
    assert (now.phase, ended.exitCode, ended.reason) == (Phase.SUCCEEDED, 0, "Completed")


def test_init_containers_end_at_once_and_sidecars_run() -> None:
    spec = pod(
        initContainers=[
            {"name": "first", "image": "i"},
            {"name": "side", "image": "i", "restartPolicy": "Always"},
        ]
    )
    first, side = at(3, life(), spec).initContainerStatuses
    assert first.state.terminated is not None
    assert (first.ready, side.ready) == (True, True)
    assert side.state.running is not None


def test_a_pod_on_the_nodes_network_has_the_nodes_address() -> None:
    assert at(3, life(), pod(hostNetwork=True)).podIP == "10.0.0.1"
