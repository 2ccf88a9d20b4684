"""What a pod needs next: sandboxes, init order, sidecars, restarts, kills and what is cleared away."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from agent.model.action import (
    ContainerStart,
    CreateSandbox,
    KillContainer,
    RemoveContainer,
    RemoveSandbox,
    SetUpVolumes,
    StartContainers,
    StopSandbox,
    TearDownVolumes,
)
from agent.model.observed import ObservedPod
from agent.model.pod import ApiPodStatus, Pod
from agent.pods.backoff import Backoff
from agent.pods.knowledge import Failure, Health, Knowledge, Stop, StopCause
from agent.pods.plan import AFTER_RUSH_S, Plan, plan
from tests.unit.pods.observations import CREATED, UNKNOWN, container, exited, observed, sandbox
from tests.unit.pods.pods import make_pod

NOW = 5000.0
READY = Knowledge(volumes_ready=True, volumes_mounted=True)
SIDE = {"name": "side", "image": "busybox", "restartPolicy": "Always"}


def pod_with(*inits: str | dict[str, Any], policy: str = "Always", mains: tuple[str, ...] = ("main",)) -> Pod:
    return make_pod(
        restartPolicy=policy,
        initContainers=[{"name": i, "image": "busybox"} if isinstance(i, str) else i for i in inits],
        containers=[{"name": m, "image": "busybox"} for m in mains],
    )


def started(made: Plan) -> list[ContainerStart]:
    return [start for action in made.actions if isinstance(action, StartContainers) for start in action.starts]


def names(made: Plan) -> list[str]:
    return [start.name for start in started(made)]


def kills(made: Plan) -> list[KillContainer]:
    return [a for a in made.actions if isinstance(a, KillContainer)]


def look(pod: Pod, seen: ObservedPod, knows: Knowledge = READY) -> Plan:
    return plan(pod, seen, knows, NOW)


def healthy(*ids: str) -> Knowledge:
    return replace(READY, health={i: Health() for i in ids})


# ---------------------------------------------------------------- sandbox and volumes


def test_a_new_pod_gets_its_sandbox_and_its_volumes_at_the_same_time() -> None:
    made = look(make_pod(), observed(), Knowledge())
    assert set(made.actions) == {SetUpVolumes(), CreateSandbox(0)}


def test_nothing_is_started_before_the_volumes_are_there() -> None:
    assert look(make_pod(), observed(sandbox()), Knowledge()).actions == (SetUpVolumes(),)


def test_a_dead_sandbox_is_replaced_by_one_of_the_next_attempt() -> None:
    made = look(make_pod(), observed(sandbox(3, ready=False), exited(sandbox_id="s3")))
    assert made.actions == (CreateSandbox(4, replaces="s3"),)


def test_an_attempt_whose_name_may_be_reserved_is_not_tried_again() -> None:
    made = look(make_pod(), observed(), replace(READY, last_sandbox_attempt=2))
    assert made.actions == (CreateSandbox(3),)


def test_of_two_sandboxes_that_are_up_the_older_goes_before_anything_else() -> None:
    assert look(make_pod(), observed(sandbox(0), sandbox(1))).actions == (StopSandbox("s0"),)


def test_what_runs_in_a_dead_sandbox_ends_with_its_grace_before_a_new_sandbox_is_made() -> None:
    made = look(make_pod(), observed(sandbox(0, ready=False), container()))
    assert [(k.container_id, k.grace_s) for k in kills(made)] == [("main-0", 30)]
    assert len(made.actions) == 1


def test_what_runs_in_a_replaced_sandbox_is_not_doubled() -> None:
    made = look(make_pod(), observed(sandbox(0, ready=False), sandbox(1), container()))
    assert [k.container_id for k in kills(made)] == ["main-0"]
    assert not started(made)


def test_a_failed_sandbox_waits_for_its_next_try() -> None:
    failed = replace(READY, pod_failure=Failure("FailedCreatePodSandBox", "no network", NOW + 4))
    made = look(make_pod(), observed(), failed)
    assert (made.actions, made.wake_at) == ((), NOW + 4)
    assert plan(make_pod(), observed(), failed, NOW + 4).actions == (CreateSandbox(0),)


def test_failed_volumes_wait_for_their_next_try_and_the_earliest_moment_wakes() -> None:
    knows = Knowledge(
        volume_failure=Failure("FailedMount", "no such secret", NOW + 2),
        pod_failure=Failure("FailedCreatePodSandBox", "no network", NOW + 9),
    )
    made = look(make_pod(), observed(), knows)
    assert (made.actions, made.wake_at) == ((), NOW + 2)


def test_a_refused_pod_gets_nothing() -> None:
    assert look(make_pod(), observed(), Knowledge(refused="spec.x: no")) == Plan()


# ---------------------------------------------------------------- init containers


def test_init_containers_run_one_after_the_other() -> None:
    pod = pod_with("a", "b")
    assert names(look(pod, observed(sandbox()))) == ["a"]
    assert names(look(pod, observed(sandbox(), container("a")))) == []
    assert names(look(pod, observed(sandbox(), exited("a")))) == ["b"]
    assert names(look(pod, observed(sandbox(), exited("a"), container("b")))) == []
    assert names(look(pod, observed(sandbox(), exited("a"), exited("b")))) == ["main"]


@pytest.mark.parametrize("policy", ["Always", "OnFailure"])
def test_a_failed_init_container_is_tried_again(policy: str) -> None:
    made = look(pod_with("a", policy=policy), observed(sandbox(), exited("a", 1)))
    assert started(made) == [ContainerStart("a", 1)]


def test_a_failed_init_container_ends_a_pod_that_never_restarts() -> None:
    made = look(pod_with("a", policy="Never"), observed(sandbox(), exited("a", 1)))
    assert set(made.actions) == {StopSandbox("s0"), TearDownVolumes()}


def test_init_containers_do_not_run_again_once_a_main_container_has_begun() -> None:
    pod = pod_with("a")
    assert names(look(pod, observed(sandbox(), exited("main", 1)))) == ["main"]
    assert names(look(pod, observed(sandbox(), exited("a"), exited("main", 1)))) == ["main"]


def test_a_removed_init_container_does_not_run_again_beside_a_later_one() -> None:
    assert names(look(pod_with("a", "b"), observed(sandbox(), container("b")))) == []
    assert names(look(pod_with("a", "b"), observed(sandbox(), exited("b")))) == ["main"]


def test_a_new_sandbox_runs_the_init_containers_again() -> None:
    seen = observed(sandbox(0, ready=False), sandbox(1), exited("a"), exited("main", 137))
    assert started(look(pod_with("a"), seen)) == [ContainerStart("a", 1)]


# ---------------------------------------------------------------- sidecars


def test_a_sidecar_holds_the_next_container_until_it_has_started() -> None:
    pod = pod_with(SIDE, "a")
    seen = observed(sandbox(), container("side"))
    assert names(look(pod, observed(sandbox()))) == ["side"]
    assert names(look(pod, seen)) == []
    assert names(look(pod, seen, replace(READY, health={"side-0": Health(started=False)}))) == []
    assert names(look(pod, seen, healthy("side-0"))) == ["a"]


def test_a_sidecar_is_not_waited_for_to_be_ready() -> None:
    knows = replace(READY, health={"side-0": Health(ready=False)})
    assert names(look(pod_with(SIDE), observed(sandbox(), container("side")), knows)) == ["main"]


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
@pytest.mark.parametrize("code", [0, 1])
def test_an_ended_sidecar_starts_again_beside_running_main_containers(policy: str, code: int) -> None:
    seen = observed(sandbox(), exited("side", code), container())
    assert started(look(pod_with(SIDE, policy=policy), seen)) == [ContainerStart("side", 1)]


def test_a_sidecar_that_waits_for_its_restart_holds_no_main_container_back() -> None:
    knows = replace(READY, backoffs={"side": Backoff(10, NOW - 1)}, ended_at={"side-0": NOW - 1})
    made = look(pod_with(SIDE), observed(sandbox(), exited("side", 1), exited("main", 1)), knows)
    assert (names(made), made.wake_at) == (["main"], NOW + 9)


def test_a_crashed_sidecar_starts_again_while_a_later_init_container_runs_and_does_not_gate_what_follows() -> None:
    pod = pod_with(SIDE, "a")
    assert names(look(pod, observed(sandbox(), exited("side", 1), container("a")))) == ["side"]
    assert names(look(pod, observed(sandbox(), exited("side", 1), exited("a")))) == ["side", "main"]


# ---------------------------------------------------------------- main containers and restarts


def test_main_containers_start_together_in_the_order_of_the_spec() -> None:
    assert names(look(pod_with(mains=("x", "y", "z")), observed(sandbox()))) == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 0, False),
        ("Never", 1, False),
    ],
)
def test_the_restart_policy_and_the_exit_code_decide_on_a_restart(policy: str, code: int, again: bool) -> None:
    seen = observed(sandbox(), exited("main", code), container("other"))
    assert names(look(pod_with(policy=policy, mains=("main", "other")), seen)) == (["main"] if again else [])


@pytest.mark.parametrize(("policy", "code"), [("OnFailure", 0), ("Never", 0), ("Never", 3)])
def test_an_end_in_an_earlier_sandbox_stands_in_a_new_one(policy: str, code: int) -> None:
    seen = observed(sandbox(0, ready=False), sandbox(1), exited("main", code))
    assert names(look(pod_with(policy=policy, mains=("main", "other")), seen)) == ["other"]


@pytest.mark.parametrize("policy", ["Always", "OnFailure"])
def test_a_failure_in_an_earlier_sandbox_is_tried_again_in_the_new_one(policy: str) -> None:
    seen = observed(sandbox(0, ready=False), sandbox(1), exited("main", 137, attempt=4))
    assert started(look(pod_with(policy=policy), seen)) == [ContainerStart("main", 5)]


def test_a_container_made_and_never_started_in_a_dead_sandbox_is_made_anew() -> None:
    seen = observed(sandbox(0, ready=False), sandbox(1), container("main", CREATED))
    assert started(look(pod_with(policy="Never"), seen)) == [ContainerStart("main", 1)]


def test_a_container_that_was_created_and_not_started_is_resumed() -> None:
    made = look(make_pod(), observed(sandbox(), container("main", CREATED)))
    assert started(made) == [ContainerStart("main", 0, resume_id="main-0")]


@pytest.mark.parametrize("seen", [observed(sandbox()), observed(sandbox(), container("main", CREATED))])
def test_a_container_that_could_not_be_started_waits_for_its_next_try(seen: ObservedPod) -> None:
    knows = replace(READY, failures={"main": Failure("ErrImagePull", "no route", NOW + 7)})
    made = look(make_pod(), seen, knows)
    assert (names(made), made.wake_at) == ([], NOW + 7)
    assert names(plan(make_pod(), seen, knows, NOW + 7)) == ["main"]


def test_the_first_crash_is_restarted_at_once_and_the_next_waits_its_backoff() -> None:
    seen = observed(sandbox(), exited("main", 1, attempt=1), exited("main", 1))
    assert names(look(make_pod(), seen)) == ["main"]
    knows = replace(READY, backoffs={"main": Backoff(10, NOW - 4)}, ended_at={"main-1": NOW - 3})
    made = look(make_pod(), seen, knows)
    assert (names(made), made.wake_at) == ([], NOW + 7)
    assert started(plan(make_pod(), seen, knows, NOW + 7)) == [ContainerStart("main", 2)]


def test_a_healthy_running_pod_needs_nothing_and_no_timer() -> None:
    assert look(make_pod(), observed(sandbox(), container()), healthy("main-0")) == Plan()


# ---------------------------------------------------------------- kills


def test_a_changed_image_ends_the_container_with_the_pods_grace() -> None:
    made = look(make_pod(), observed(sandbox(), container(spec_hash="old")))
    assert [(k.container_id, k.grace_s) for k in kills(made)] == [("main-0", 30)]
    assert not started(made)


def test_a_changed_image_restarts_a_sidecar_and_leaves_a_running_init_container() -> None:
    pod = pod_with(SIDE, "a")
    seen = observed(sandbox(), container("side", spec_hash="old"), container("a", spec_hash="old"))
    assert [k.name for k in kills(look(pod, seen, healthy("side-0")))] == ["side"]


def test_a_failed_probe_ends_the_container_with_the_probes_own_grace() -> None:
    seen = observed(sandbox(), container())
    failed = Health(failed="Container main failed liveness probe, will be restarted")
    assert kills(look(make_pod(), seen, replace(READY, health={"main-0": failed}))) == [
        KillContainer("main-0", "main", 30, failed.failed)
    ]
    urgent = replace(failed, grace_s=5)
    assert kills(look(make_pod(), seen, replace(READY, health={"main-0": urgent})))[0].grace_s == 5


def test_a_container_with_two_reasons_to_be_killed_is_killed_once() -> None:
    knows = replace(READY, health={"main-0": Health(failed="liveness")})
    assert len(kills(look(make_pod(), observed(sandbox(), container(spec_hash="old")), knows))) == 1


def test_a_container_in_an_unknown_state_is_killed_at_once_and_not_started_beside_itself() -> None:
    made = look(make_pod(), observed(sandbox(), container("main", UNKNOWN)))
    assert [(k.container_id, k.grace_s) for k in kills(made)] == [("main-0", 0)]
    assert not started(made)


def test_a_container_that_the_spec_does_not_name_is_left_alone() -> None:
    assert look(make_pod(), observed(sandbox(), container(), container("debugger")), healthy("main-0")) == Plan()


# ---------------------------------------------------------------- what is cleared away


def test_the_newest_two_of_a_container_stay() -> None:
    seen = observed(sandbox(), container(attempt=3), *(exited(code=1, attempt=n) for n in (0, 1, 2)))
    assert look(make_pod(), seen, healthy("main-3")).actions == (RemoveContainer("main-1"), RemoveContainer("main-0"))


def test_a_container_that_never_ran_goes_when_there_is_a_newer_one() -> None:
    seen = observed(
        sandbox(0, ready=False),
        sandbox(1),
        container(attempt=2, sandbox_id="s1"),
        container("main", CREATED, attempt=1),
        exited(code=1),
    )
    assert look(make_pod(), seen, healthy("main-2")).actions == (RemoveContainer("main-1"), StopSandbox("s0"))


def test_what_a_reboot_left_goes_only_when_nothing_waits_to_start() -> None:
    left = (sandbox(0, ready=False), sandbox(1, ready=False), sandbox(2), exited(code=1, sandbox_id="s1"))
    (start,) = look(make_pod(), observed(*left)).actions
    assert isinstance(start, StartContainers)
    seen = observed(*left, container(attempt=1, sandbox_id="s2"))
    rush = look(make_pod(), seen, replace(healthy("main-1"), rush=True))
    assert (rush.actions, rush.wake_at) == ((), NOW + AFTER_RUSH_S), "other pods still start"
    assert look(make_pod(), seen, healthy("main-1")).actions == (RemoveSandbox("s0"), StopSandbox("s1"))


def test_a_dead_sandbox_without_containers_goes_and_one_with_the_last_end_stays() -> None:
    seen = observed(
        sandbox(0, ready=False),
        sandbox(1, ready=False),
        sandbox(2),
        exited(code=1, sandbox_id="s1"),
        container(attempt=1, sandbox_id="s2"),
    )
    taken_down = replace(healthy("main-1"), taken_down=frozenset({"s1"}))
    assert look(make_pod(), seen, taken_down).actions == (RemoveSandbox("s0"),)


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize(("policy", "code"), [("OnFailure", 0), ("Never", 0), ("Never", 1)])
def test_a_finished_pod_ends_its_sidecars_then_its_sandbox(policy: str, code: int) -> None:
    pod = pod_with(SIDE, policy=policy)
    made = look(pod, observed(sandbox(), container("side"), exited("main", code)))
    assert [k.name for k in kills(made)] == ["side"]
    made = look(pod, observed(sandbox(), exited("side", 143), exited("main", code)))
    assert set(made.actions) == {StopSandbox("s0"), TearDownVolumes()}
    assert not made.done
    made = look(pod, observed(sandbox(0, ready=False), exited("main", code)), Knowledge())
    assert (made.actions, made.done) == ((), True)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_the_api_server_has_as_ended_never_runs_again(phase: str) -> None:
    pod = msgspec.structs.replace(make_pod(), status=ApiPodStatus(phase=phase))
    assert look(pod, observed(), Knowledge()) == Plan(done=True)
    assert [k.name for k in kills(look(pod, observed(sandbox(), container())))] == ["main"]


def test_a_pod_whose_status_said_its_end_before_a_restart_never_runs_again() -> None:
    assert look(make_pod(), observed(), Knowledge(ended=True)) == Plan(done=True)


def test_stopping_goes_before_all_else() -> None:
    stop = Stop(StopCause.DELETED, NOW + 10)
    made = look(make_pod(), observed(sandbox(), container()), replace(READY, stop=stop))
    assert [(k.container_id, k.grace_s) for k in kills(made)] == [("main-0", 10)]
    assert look(make_pod(), observed(), Knowledge(stop=stop, refused="spec.x: no")).done


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
def test_a_start_that_died_with_the_agent_is_cleared_away_and_made_again_as_the_same_attempt(policy: str) -> None:
    never_ran = exited(code=128, started_at_ns=0, reason="StartError")
    left = replace(observed(sandbox()), abandoned=(never_ran,))
    assert plan(pod_with(policy=policy), left, READY, NOW).actions == (RemoveContainer("main-0"),)
    assert started(plan(pod_with(policy=policy), observed(sandbox()), READY, NOW)) == [ContainerStart("main", 0)]
