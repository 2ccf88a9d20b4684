"""Whether a container runs again: its rules, its policy, the pod's policy; and what the planner and the status make of
it, with a pod that starts over as a whole.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from agent.model.action import ContainerStart, CreateSandbox, KillContainer, RemoveContainer, StartContainers
from agent.model.observed import ObservedPod
from agent.model.pod import Pod
from agent.model.status import Phase, PodStatus
from agent.pods.backoff import Backoff
from agent.pods.knowledge import Health, Knowledge
from agent.pods.plan import Plan, plan
from agent.pods.restart import may_restart_all, restart_due, restarts, restarts_when_killed
from agent.pods.status import StatusContext, pod_status
from tests.unit.pods.observations import UNKNOWN, container, exited, observed, sandbox
from tests.unit.pods.pods import container_pod, make_pod

NOW = 5000.0
READY = Knowledge(volumes_ready=True, volumes_mounted=True)


def rule(action: str, operator: str, *codes: int) -> dict[str, Any]:
    return {"action": action, "exitCodes": {"operator": operator, "values": list(codes)}}


RESTART_42 = rule("Restart", "In", 42)
ALL_42 = rule("RestartAllContainers", "In", 42)


def look(pod: Pod, seen: ObservedPod, knows: Knowledge = READY) -> Plan:
    return plan(pod, seen, knows, NOW)


def told(pod: Pod, seen: ObservedPod, knows: Knowledge = READY, previous: PodStatus | None = None) -> PodStatus:
    return pod_status(pod, seen, knows, previous, StatusContext(("192.0.2.1",), 1_700_000_100.0, NOW))


def starts(made: Plan) -> list[ContainerStart]:
    return [start for action in made.actions if isinstance(action, StartContainers) for start in action.starts]


@pytest.mark.parametrize(
    ("of_pod", "own", "rules", "code", "again"),
    [
        ("Always", None, [], 0, True),
        ("OnFailure", None, [], 0, False),
        ("OnFailure", None, [], 1, True),
        ("Never", None, [], 1, False),
        ("Never", "Always", [], 0, True),
        ("Never", "OnFailure", [], 0, False),
        ("Never", "OnFailure", [], 1, True),
        ("Always", "Never", [], 1, False),
        ("Always", "OnFailure", [], 0, False),
        ("Always", "Never", [RESTART_42], 42, True),
        ("Always", "Never", [RESTART_42], 1, False),
        ("Never", "OnFailure", [RESTART_42], 1, True),
        ("Never", "Never", [rule("Restart", "NotIn", 1)], 0, True),
        ("Never", "Never", [rule("Restart", "NotIn", 1)], 1, False),
        ("Never", "Never", [ALL_42], 42, True),
        # Rules speak only for a container with a policy of its own, and only about exit codes.
        ("Never", None, [RESTART_42], 42, False),
        ("Never", "Never", [{"action": "Restart"}], 42, False),
        ("Never", "Never", [rule("Restart", "In", 7), RESTART_42], 42, True),
    ],
)
def test_rules_come_before_the_containers_policy_and_that_before_the_pods(
    of_pod: str, own: str | None, rules: list[Any], code: int, again: bool
) -> None:
    main = {"name": "main", "image": "busybox", "restartPolicy": own, "restartPolicyRules": rules}
    pod = make_pod(restartPolicy=of_pod, containers=[main])
    assert restarts(pod, pod.spec.containers[0], code) is again
    seen = observed(sandbox(), exited(code=code))
    over = bool(rules) and rules[0] is ALL_42
    if over:
        assert look(pod, seen).actions == (RemoveContainer("main-0", keep_log=True),)
    else:
        assert bool(starts(look(pod, seen))) is again
    # What Jobs and ReplicaSets read: the pod has ended exactly where nothing of it runs again.
    ended = Phase.SUCCEEDED if code == 0 else Phase.FAILED
    assert told(pod, seen).phase is (Phase.RUNNING if again else ended)


@pytest.mark.parametrize(
    ("of_pod", "own", "again"),
    [
        ("Always", None, True),
        ("OnFailure", None, True),
        ("Never", None, False),
        ("Never", "OnFailure", True),
        ("Always", "Never", False),
    ],
)
def test_after_a_failed_probe_only_never_keeps_a_container_down(of_pod: str, own: str | None, again: bool) -> None:
    main = {"name": "main", "image": "busybox", "restartPolicy": own, "restartPolicyRules": [RESTART_42]}
    pod = make_pod(restartPolicy=of_pod, containers=[main])
    assert restarts_when_killed(pod, pod.spec.containers[0]) is again


def test_one_container_ends_for_good_while_another_is_restarted() -> None:
    pod = make_pod(
        restartPolicy="Never",
        containers=[
            {"name": "once", "image": "busybox"},
            {"name": "ever", "image": "busybox", "restartPolicy": "Always"},
        ],
    )
    seen = observed(sandbox(), exited("once", 1), exited("ever", 0))
    assert starts(look(pod, seen)) == [ContainerStart("ever", 1)]
    assert told(pod, seen).phase is Phase.RUNNING


@pytest.mark.parametrize(("own", "again"), [("OnFailure", True), ("Never", False)])
def test_a_failed_init_container_goes_by_its_own_policy(own: str, again: bool) -> None:
    pod = make_pod(
        restartPolicy="Never" if again else "Always",
        initContainers=[{"name": "a", "image": "busybox", "restartPolicy": own}],
    )
    seen = observed(sandbox(), exited("a", 1))
    assert bool(starts(look(pod, seen))) is again
    assert told(pod, seen).phase is (Phase.PENDING if again else Phase.FAILED)


def test_an_init_container_that_succeeded_is_through_whatever_its_rules_say() -> None:
    own = {"restartPolicy": "OnFailure", "restartPolicyRules": [rule("Restart", "NotIn", 7)]}
    pod = make_pod(initContainers=[{"name": "a", "image": "busybox", **own}])
    assert [s.name for s in starts(look(pod, observed(sandbox(), exited("a", 0))))] == ["main"]


def test_a_sidecar_runs_again_under_every_policy_of_the_pod() -> None:
    for policy in ("Always", "OnFailure", "Never"):
        pod = make_pod(
            restartPolicy=policy, initContainers=[{"name": "side", "image": "busybox", "restartPolicy": "Always"}]
        )
        seen = observed(sandbox(), exited("side", 0), container())
        assert starts(look(pod, seen)) == [ContainerStart("side", 1)]


def test_a_container_that_waits_by_its_rule_shows_crash_loop_backoff() -> None:
    pod = container_pod(restartPolicy="Never", restartPolicyRules=[RESTART_42])
    knows = replace(READY, backoffs={"main": Backoff(10.0, NOW)}, ended_at={"main-0": NOW})
    state = told(pod, observed(sandbox(), exited(code=42)), knows).containerStatuses[0]
    assert state.state.waiting is not None
    assert state.state.waiting.reason == "CrashLoopBackOff"
    assert state.lastState.terminated is not None


# ---------------------------------------------------------------- ended in order to be started anew


@pytest.mark.parametrize("policy", ["OnFailure", "Never"])
def test_a_container_that_was_ended_for_its_new_image_runs_again_under_every_policy(policy: str) -> None:
    pod = make_pod(restartPolicy=policy, containers=[{"name": "main", "image": "busybox:2"}])
    (kill,) = look(pod, observed(sandbox(), container())).actions
    assert isinstance(kill, KillContainer)
    assert kill.replaced
    knows = replace(READY, replaced=frozenset({"main-0"}))
    seen = observed(sandbox(), exited(code=0))
    assert starts(look(pod, seen, knows)) == [ContainerStart("main", 1)]
    status = told(pod, seen, knows)
    # The API server takes an end back only where the policy allows it: none is told.
    assert status.phase is Phase.RUNNING
    assert status.containerStatuses[0].state.waiting is not None
    assert status.containerStatuses[0].lastState.terminated is not None


def test_a_container_of_which_another_image_is_wanted_after_its_end_stays_ended() -> None:
    pod = make_pod(restartPolicy="Never", containers=[{"name": "main", "image": "busybox:2"}])
    assert told(pod, observed(sandbox(), exited(code=0))).phase is Phase.SUCCEEDED


def test_what_failed_its_liveness_probe_runs_again_though_it_ended_well() -> None:
    pod = make_pod(restartPolicy="OnFailure")
    sick = Health(failed="Container main failed liveness probe, will be restarted", restarts=True)
    (kill,) = look(pod, observed(sandbox(), container()), replace(READY, health={"main-0": sick})).actions
    assert isinstance(kill, KillContainer)
    assert kill.replaced
    knows = replace(READY, replaced=frozenset({"main-0"}))
    assert starts(look(pod, observed(sandbox(), exited(code=0)), knows)) == [ContainerStart("main", 1)]


@pytest.mark.parametrize(
    ("name", "policy", "replaced"), [("main", "Never", True), ("a", "Never", False), ("a", "Always", True)]
)
def test_a_container_in_an_unknown_state_is_ended_and_replaced(name: str, policy: str, replaced: bool) -> None:
    pod = make_pod(restartPolicy=policy, initContainers=[{"name": "a", "image": "busybox"}])
    (kill,) = look(pod, observed(sandbox(), container(name, UNKNOWN))).actions
    assert isinstance(kill, KillContainer)
    assert (kill.grace_s, kill.replaced) == (0, replaced)


def test_another_image_does_not_wait_for_the_crashes_of_the_last() -> None:
    crashed = replace(READY, backoffs={"main": Backoff(300.0, NOW)}, ended_at={"main-0": NOW})
    seen = observed(sandbox(), exited(code=1))
    assert not starts(look(make_pod(), seen, crashed))
    other = make_pod(containers=[{"name": "main", "image": "busybox:2"}])
    assert starts(look(other, seen, crashed)) == [ContainerStart("main", 1)]
    assert told(other, seen, crashed).containerStatuses[0].state.terminated is not None


# ---------------------------------------------------------------- counts that never fall


def test_a_container_that_the_runtime_lost_does_not_use_its_attempts_again() -> None:
    knows = replace(READY, attempts={"main": 4})
    assert starts(look(make_pod(), observed(sandbox()), knows)) == [ContainerStart("main", 5)]


def test_a_restart_count_that_was_told_is_never_taken_back() -> None:
    pod = make_pod()
    before = replaced_status(told(pod, observed(sandbox(), container(attempt=3))), restartCount=7)
    assert told(pod, observed(sandbox(), container(attempt=3)), previous=before).containerStatuses[0].restartCount == 7


def replaced_status(status: PodStatus, **fields: Any) -> PodStatus:
    main = msgspec.structs.replace(status.containerStatuses[0], **fields)
    return msgspec.structs.replace(status, containerStatuses=(main,))


def test_the_last_end_is_still_told_when_the_runtime_has_it_no_more() -> None:
    pod = make_pod()
    before = told(pod, observed(sandbox(), exited(code=3)))
    after = told(pod, observed(sandbox(), container(attempt=1)), previous=before)
    last = after.containerStatuses[0].lastState.terminated
    assert last is not None
    assert last.exitCode == 3
    again = told(pod, observed(sandbox(), container(attempt=1)), previous=after)
    assert again.containerStatuses[0].lastState.terminated == last


# ---------------------------------------------------------------- the whole pod starts over

OVER = make_pod(
    restartPolicy="Never",
    initContainers=[{"name": "a", "image": "busybox"}, {"name": "side", "image": "busybox", "restartPolicy": "Always"}],
    containers=[
        {"name": "main", "image": "busybox", "restartPolicy": "Never", "restartPolicyRules": [ALL_42]},
        {"name": "other", "image": "busybox"},
    ],
)


def test_a_pod_starts_over_by_ending_all_then_removing_all_and_the_cause_last() -> None:
    a, side, other, cause = exited("a"), container("side"), container("other"), exited("main", 42)
    old = exited("side", 1, attempt=0)
    side = container("side", attempt=1)
    made = look(OVER, observed(sandbox(), a, old, side, other, cause))
    assert {(k.container_id, k.grace_s) for k in made.actions if isinstance(k, KillContainer)} == {
        ("side-1", 0),
        ("other-0", 0),
    }
    assert len(made.actions) == 2
    side, other = exited("side", 137, attempt=1), exited("other", 137)
    made = look(OVER, observed(sandbox(), a, old, side, other, cause))
    assert {c.container_id for c in made.actions if isinstance(c, RemoveContainer) and c.keep_log} == {
        "a-0",
        "side-0",
        "side-1",
        "other-0",
    }
    assert look(OVER, observed(sandbox(), cause)).actions == (RemoveContainer("main-0", keep_log=True),)
    knows = replace(READY, attempts={"a": 0, "side": 1, "main": 0, "other": 0})
    assert starts(look(OVER, observed(sandbox()), knows)) == [ContainerStart("a", 1)]


def test_the_status_of_a_pod_that_starts_over() -> None:
    first = told(OVER, observed(sandbox(), exited("a"), container("side"), container("other"), exited("main", 42)))
    assert first.phase is Phase.RUNNING
    over = first.condition("AllContainersRestarting")
    assert over is not None
    assert (over.status, over.reason) == ("True", "RestartAllContainersStarted")
    gone = told(OVER, observed(sandbox()), previous=first)
    over = gone.condition("AllContainersRestarting")
    assert over is not None
    assert over.status == "False"
    assert gone.phase is Phase.RUNNING
    for status in gone.all_containers:
        assert status.state.waiting is not None
        assert status.state.waiting.reason == "RestartingAllContainers"
        assert status.lastState.terminated is not None
        assert (status.lastState.terminated.exitCode, status.restartCount) == (137, 1)
    again = told(OVER, observed(sandbox(), container("a", attempt=1)), previous=gone)
    assert [s.restartCount for s in again.all_containers] == [1, 1, 1, 1]


def test_a_pod_without_such_a_rule_has_no_such_condition() -> None:
    assert not may_restart_all(make_pod())
    assert told(make_pod(), observed(sandbox(), container())).condition("AllContainersRestarting") is None


def test_a_pod_whose_sandbox_died_as_well_starts_over_before_it_gets_another() -> None:
    seen = observed(sandbox(0, ready=False), exited("main", 42))
    assert look(OVER, seen).actions == (RemoveContainer("main-0", keep_log=True),)
    dead = observed(sandbox(0, ready=False))
    assert look(OVER, dead).actions == (CreateSandbox(1, replaces="s0"),)


@pytest.mark.parametrize(
    ("ends", "backoff", "killed", "due"),
    [
        # (monotonic ends, newest last), the backoff, whether the node ended the newest itself
        ([1000.0], None, True, 1000.0),
        ([900.0, 1000.0], Backoff(40, 905.0), True, 1000.0),
        ([980.0, 1000.0], Backoff(40, 985.0), True, 1040.0),
        ([900.0, 1000.0], Backoff(40, 905.0), False, 1040.0),
        ([1000.0], Backoff(40, 905.0), True, 1000.0),
    ],
)
def test_what_the_node_ended_waits_only_if_the_end_before_is_too_fresh(
    ends: list[float], backoff: Backoff | None, killed: bool, due: float
) -> None:
    seen = observed(sandbox(), *(exited(code=137, attempt=attempt) for attempt, _ in enumerate(ends)))
    newest = seen.containers[0]
    ended_at = {f"main-{attempt}": end for attempt, end in enumerate(ends)}
    assert restart_due(seen, newest, backoff, ended_at, {newest.id} if killed else set(), NOW) == due


def test_a_container_whose_probe_fails_again_and_again_is_started_at_once_each_time() -> None:
    seen = observed(sandbox(), exited(code=137, attempt=1), exited(code=137, attempt=2))
    ends = {"main-1": NOW - 42, "main-2": NOW}
    knows = Knowledge(
        volumes_ready=True,
        volumes_mounted=True,
        backoffs={"main": Backoff(20, NOW - 42)},
        ended_at=ends,
        replaced=frozenset({"main-2"}),
    )
    assert starts(look(make_pod(), seen, knows)) == [ContainerStart("main", 3)]
    crashed = replace(knows, replaced=frozenset())
    assert starts(look(make_pod(), seen, crashed)) == []
