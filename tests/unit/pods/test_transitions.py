"""What changed between two statuses, in words."""

from __future__ import annotations

from agent.model.pod import PodCondition
from agent.model.status import ContainerStatus, Phase, PodStatus, Running, State, Terminated, Waiting
from agent.pods.transitions import transitions


def status(state: State, *, ready: str = "True", restarts: int = 0, phase: Phase = Phase.RUNNING) -> PodStatus:
    reason = "" if ready == "True" else "ContainersNotReady"
    return PodStatus(
        phase=phase,
        conditions=(PodCondition(type="Ready", status=ready, reason=reason),),
        containerStatuses=(ContainerStatus("main", state, restartCount=restarts),),
    )


RUNS = State(running=Running("2026-01-01T00:00:00Z"))


def test_the_same_status_says_nothing() -> None:
    assert transitions(status(RUNS), status(RUNS)) == ()


def test_a_container_that_ends_and_one_that_is_started_again() -> None:
    ended = status(State(terminated=Terminated(1, "Error")), ready="False")
    assert transitions(status(RUNS), ended) == (
        "Ready False (ContainersNotReady)",
        "container main ended with 1 (Error)",
    )
    assert transitions(ended, status(RUNS, restarts=1)) == ("Ready True", "container main running, restart 1")


def test_a_phase_and_a_waiting_container() -> None:
    waits = status(State(waiting=Waiting("CrashLoopBackOff")), phase=Phase.PENDING)
    assert transitions(waits, status(RUNS)) == ("phase Pending to Running", "container main running")
    assert transitions(None, waits) == ("phase Pending",)
