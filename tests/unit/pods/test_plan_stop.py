"""How a pod ends: main containers, sidecars from the last to the first, sandbox and volumes."""

from __future__ import annotations

import pytest

from agent.model.action import Action, KillContainer, StopSandbox, TearDownVolumes
from agent.model.observed import ObservedContainer, ObservedPod
from agent.pods.plan_stop import plan_stop
from tests.unit.pods.observations import CREATED, UNKNOWN, container, exited, observed, sandbox
from tests.unit.pods.pods import make_pod

POD = make_pod(
    initContainers=[
        {"name": "init", "image": "busybox"},
        {"name": "side1", "image": "busybox", "restartPolicy": "Always"},
        {"name": "side2", "image": "busybox", "restartPolicy": "Always"},
    ],
    containers=[{"name": "main", "image": "busybox"}, {"name": "other", "image": "busybox"}],
)


def stop(
    seen: ObservedPod, *, mounted: bool = True, deadline: float = 130.0, now: float = 100.0
) -> tuple[tuple[Action, ...], bool]:
    actions, _, down = plan_stop(POD, seen, volumes_mounted=mounted, deadline=deadline, now=now)
    return actions, down


def killed(seen: ObservedPod) -> dict[str, set[str]]:
    """What is killed, each with those that it waits for."""
    actions, _ = stop(seen)
    assert all(isinstance(a, KillContainer) for a in actions)
    kills = [a for a in actions if isinstance(a, KillContainer)]
    names = {k.container_id: k.name for k in kills}
    return {k.name: {names[first] for first in k.after} for k in kills}


SIDES = (container("side1"), container("side2"))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (
            (container("main"), container("other"), *SIDES),
            {"main": set(), "other": set(), "side1": {"main", "other", "side2"}, "side2": {"main", "other"}},
        ),
        (
            (exited("main"), container("other"), *SIDES),
            {"other": set(), "side1": {"other", "side2"}, "side2": {"other"}},
        ),
        ((exited("main"), exited("other"), *SIDES), {"side2": set(), "side1": {"side2"}}),
        ((container("side1"), exited("side2")), {"side1": set()}),
        # A running init container ends with the main ones.
        (
            (container("init"), container("side1")),
            {"init": set(), "side1": {"init"}},
        ),
        # Nobody waits for a debugger.
        ((container("side1"), container("debugger")), {"side1": set(), "debugger": set()}),
        # What is in an unknown state may still run.
        ((container("main", UNKNOWN),), {"main": set()}),
    ],
)
def test_all_end_at_once_and_sidecars_wait_for_the_main_ones_and_for_those_behind_them(
    seen: tuple[ObservedContainer, ...], expected: dict[str, set[str]]
) -> None:
    assert killed(observed(sandbox(), *seen)) == expected


def test_the_grace_is_what_is_left_of_it_and_never_nothing() -> None:
    def grace(deadline: float) -> int:
        actions, _ = stop(observed(sandbox(), container()), deadline=deadline)
        assert isinstance(actions[0], KillContainer)
        return actions[0].grace_s

    assert grace(112.3) == 13
    assert grace(101.0) == 1
    assert grace(50.0) == 1


def test_sandbox_and_volumes_go_when_nothing_runs() -> None:
    seen = observed(sandbox(0, ready=False), sandbox(1), container("main", CREATED), exited("other"))
    assert stop(seen) == ((StopSandbox("s1"), TearDownVolumes()), False)
    assert stop(seen, mounted=False) == ((StopSandbox("s1"),), False)


def test_it_is_over_when_everything_is_down() -> None:
    assert stop(observed(sandbox(ready=False), exited()), mounted=False) == ((), True)
    assert stop(observed(), mounted=False) == ((), True)
    assert stop(observed(), mounted=True) == ((TearDownVolumes(),), False)
