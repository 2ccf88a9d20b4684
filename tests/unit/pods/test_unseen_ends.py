"""Containers of an ended pod that nobody has seen end."""

from __future__ import annotations

from typing import Any

import pytest

from agent.model.pod import PodCondition
from agent.model.status import ContainerStatus, Phase, PodStatus, Running, State, Terminated, Waiting
from agent.pods.unseen_ends import with_unseen_ends
from tests.unit.pods.pods import make_pod

WAITS = State(waiting=Waiting(reason="PodInitializing"))
RUNS = State(running=Running(startedAt="2026-01-01T00:00:00Z"))
DONE = State(terminated=Terminated(exitCode=0, reason="Completed"))
BROKE = State(terminated=Terminated(exitCode=1, reason="Error"))


def status(name: str, state: State, last: State | None = None) -> ContainerStatus:
    return ContainerStatus(
        name=name, state=state, lastState=last or State(), image="busybox", restartCount=0, started=True, ready=True
    )


def told(of: ContainerStatus) -> str:
    if of.state.terminated is None:
        return "waiting" if of.state.waiting else "running"
    assert of.state.terminated.reason != "ContainerStatusUnknown" or (of.ready, of.started) == (False, False)
    return f"{of.state.terminated.reason} {of.state.terminated.exitCode}"


UNKNOWN = "ContainerStatusUnknown 137"
SIDE: dict[str, Any] = {"restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("inits", "mains", "initialized", "expected"),
    [
        # Without init containers the pod was initialized.
        ([], [WAITS], False, ([], [UNKNOWN])),
        ([], [RUNS, DONE], False, ([], [UNKNOWN, "Completed 0"])),
        # Init containers that never ended: the first, and those before one that ran; main ones never had their turn.
        ([WAITS, WAITS], [WAITS], False, ([UNKNOWN, "waiting"], ["waiting"])),
        ([RUNS, WAITS], [WAITS], False, ([UNKNOWN, "waiting"], ["waiting"])),
        ([DONE, RUNS, WAITS], [WAITS], False, (["Completed 0", UNKNOWN, "waiting"], ["waiting"])),
        ([DONE, BROKE], [WAITS], False, (["Completed 0", "Error 1"], ["waiting"])),
        # The last one was through, or the pod was known to be initialized.
        ([DONE], [WAITS], False, (["Completed 0"], [UNKNOWN])),
        ([WAITS], [WAITS], True, ([UNKNOWN], [UNKNOWN])),
        ([WAITS], [WAITS, DONE], False, ([UNKNOWN], [UNKNOWN, "Completed 0"])),
    ],
)
def test_what_had_its_turn_has_an_end(
    inits: list[State], mains: list[State], initialized: bool, expected: tuple[list[str], list[str]]
) -> None:
    pod = make_pod(
        initContainers=[{"name": f"i{n}", "image": "busybox"} for n in range(len(inits))],
        containers=[{"name": f"m{n}", "image": "busybox"} for n in range(len(mains))],
    )
    previous = PodStatus(
        phase=Phase.PENDING, conditions=(PodCondition(type="Initialized", status="True" if initialized else "False"),)
    )
    ended = with_unseen_ends(
        pod,
        tuple(status(f"i{n}", s) for n, s in enumerate(inits)),
        tuple(status(f"m{n}", s) for n, s in enumerate(mains)),
        previous,
    )
    assert ([told(s) for s in ended[0]], [told(s) for s in ended[1]]) == expected


def test_a_sidecar_that_ended_does_not_make_the_pod_initialized() -> None:
    pod = make_pod(initContainers=[{"name": "side", "image": "busybox", **SIDE}])
    _, mains = with_unseen_ends(pod, (status("side", DONE),), (status("main", WAITS),), None)
    assert told(mains[0]) == "waiting"


def test_a_container_that_waits_for_its_restart_counts_as_one_that_ran() -> None:
    pod = make_pod(initContainers=[{"name": n, "image": "busybox"} for n in ("a", "b")])
    inits, mains = with_unseen_ends(
        pod, (status("a", WAITS), status("b", WAITS, BROKE)), (status("main", WAITS),), None
    )
    assert [told(s) for s in (*inits, *mains)] == [UNKNOWN, UNKNOWN, "waiting"]
