"""How a pod ends: main containers, sidecars from the last to the first, sandbox and volumes."""

from __future__ import annotations

from agent.model.action import Action, KillContainer, StopSandbox, TearDownVolumes
from agent.model.observed import ObservedPod
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


def killed(seen: ObservedPod) -> list[str]:
    actions, _ = stop(seen)
    assert all(isinstance(a, KillContainer) for a in actions)
    return sorted(a.name for a in actions if isinstance(a, KillContainer))


def test_main_containers_end_together_and_sidecars_after_them_from_the_last_to_the_first() -> None:
    sides = (container("side1"), container("side2"))
    assert killed(observed(sandbox(), container("main"), container("other"), *sides)) == ["main", "other"]
    assert killed(observed(sandbox(), exited("main"), container("other"), *sides)) == ["other"]
    assert killed(observed(sandbox(), exited("main"), exited("other"), *sides)) == ["side2"]
    assert killed(observed(sandbox(), container("side1"), exited("side2"))) == ["side1"]


def test_a_running_init_container_and_one_that_nobody_knows_end_with_the_main_ones() -> None:
    assert killed(observed(sandbox(), container("init"), container("stranger"), container("side1"))) == [
        "init",
        "stranger",
    ]


def test_a_container_in_an_unknown_state_may_still_run_and_is_ended() -> None:
    assert killed(observed(sandbox(), container("main", UNKNOWN))) == ["main"]


def test_the_grace_is_what_is_left_of_it_and_never_below_two_seconds() -> None:
    def grace(deadline: float) -> int:
        actions, _ = stop(observed(sandbox(), container()), deadline=deadline)
        assert isinstance(actions[0], KillContainer)
        return actions[0].grace_s

    assert grace(112.3) == 13
    assert grace(101.0) == 2
    assert grace(50.0) == 2


def test_sandbox_and_volumes_go_when_nothing_runs() -> None:
    seen = observed(sandbox(0, ready=False), sandbox(1), container("main", CREATED), exited("other"))
    assert stop(seen) == ((StopSandbox("s1"), TearDownVolumes()), False)
    assert stop(seen, mounted=False) == ((StopSandbox("s1"),), False)


def test_it_is_over_when_everything_is_down() -> None:
    assert stop(observed(sandbox(ready=False), exited()), mounted=False) == ((), True)
    assert stop(observed(), mounted=False) == ((), True)
    assert stop(observed(), mounted=True) == ((TearDownVolumes(),), False)
