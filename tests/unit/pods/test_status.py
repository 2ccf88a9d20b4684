"""PodStatus as the kubelet writes it: phases, container states, history, addresses, times."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from agent.model.container import ResourceRequirements
from agent.model.observed import ObservedContainer, ObservedPod
from agent.model.pod import ApiPodStatus, Pod
from agent.model.status import IP, ContainerStatus, Phase, PodStatus, Running, State, Terminated, Waiting
from agent.pods.backoff import Backoff
from agent.pods.knowledge import Failure, Health, Knowledge, Stop, StopCause
from agent.pods.status import StatusContext, is_finished, pod_status
from tests.unit.pods.observations import CREATED, RUNNING, UNKNOWN, container, exited, observed, sandbox
from tests.unit.pods.pods import make_pod

NOW = 5000.0
CONTEXT = StatusContext(host_ips=("192.0.2.1", "2001:db8::1"), wall=1_700_000_100.0, now=NOW)
WALL = "2023-11-14T22:15:00Z"
SIDE = {"name": "side", "image": "busybox", "restartPolicy": "Always"}
DELETED = Stop(StopCause.DELETED, NOW + 30)
OVERDUE = Stop(StopCause.FAILED, NOW + 30, "DeadlineExceeded", "too long")
NOTHING = Knowledge()


def pod_with(*inits: str | dict[str, Any], policy: str = "Always", **more: Any) -> Pod:
    return make_pod(
        restartPolicy=policy,
        initContainers=[{"name": i, "image": "busybox"} if isinstance(i, str) else i for i in inits],
        **more,
    )


def look(
    pod: Pod,
    seen: ObservedPod,
    knows: Knowledge = NOTHING,
    previous: PodStatus | None = None,
) -> PodStatus:
    return pod_status(pod, seen, knows, previous, CONTEXT)


def healthy(*containers: ObservedContainer, stop: Stop | None = None) -> Knowledge:
    return Knowledge(health={c.id: Health() for c in containers}, stop=stop)


def phase(pod: Pod, *found: Any, stop: Stop | None = None, previous: PodStatus | None = None) -> Phase:
    ran = [c for c in found if isinstance(c, ObservedContainer) and c.state is RUNNING]
    return look(pod, observed(sandbox(), *found), healthy(*ran, stop=stop), previous).phase


def of_main(status: PodStatus) -> ContainerStatus:
    return status.containerStatuses[0]


# ---------------------------------------------------------------- phase


def test_a_pod_is_pending_until_every_main_container_has_run() -> None:
    pod = make_pod(containers=[{"name": "main", "image": "busybox"}, {"name": "other", "image": "busybox"}])
    assert look(pod, observed()).phase is Phase.PENDING
    assert phase(pod, container()) is Phase.PENDING
    assert phase(pod, container(), container("other", CREATED)) is Phase.PENDING
    assert phase(pod, container(), container("other")) is Phase.RUNNING
    assert phase(pod, container(), exited("other", 1)) is Phase.RUNNING


def test_a_pod_is_pending_while_its_init_containers_run() -> None:
    pod = pod_with("a", "b")
    assert phase(pod, container("a")) is Phase.PENDING
    assert phase(pod, exited("a"), container("b")) is Phase.PENDING
    assert phase(pod, exited("a", 1)) is Phase.PENDING
    assert phase(pod, exited("a"), exited("b"), container()) is Phase.RUNNING


def test_a_pod_is_pending_while_its_sidecar_starts_and_not_when_it_crashes_later() -> None:
    pod = pod_with(SIDE)
    seen = observed(sandbox(), container("side"))
    assert look(pod, seen, Knowledge(health={"side-0": Health(started=False)})).phase is Phase.PENDING
    assert phase(pod, exited("side", 1), container()) is Phase.RUNNING


@pytest.mark.parametrize(
    ("policy", "codes", "wanted"),
    [
        ("Always", (0, 0), Phase.RUNNING),
        ("Always", (1, 1), Phase.RUNNING),
        ("OnFailure", (0, 0), Phase.SUCCEEDED),
        ("OnFailure", (0, 1), Phase.RUNNING),
        ("Never", (0, 0), Phase.SUCCEEDED),
        ("Never", (0, 1), Phase.FAILED),
    ],
)
def test_when_all_have_ended_policy_and_exit_codes_decide(policy: str, codes: tuple[int, int], wanted: Phase) -> None:
    pod = make_pod(
        restartPolicy=policy,
        containers=[{"name": "main", "image": "busybox"}, {"name": "other", "image": "busybox"}],
    )
    assert phase(pod, exited("main", codes[0]), exited("other", codes[1])) is wanted


def test_a_failed_init_container_fails_a_pod_that_never_restarts() -> None:
    pod = pod_with(SIDE, "a", policy="Never")
    assert phase(pod, container("side"), exited("a", 1)) is Phase.PENDING
    assert phase(pod, exited("side", 143), exited("a", 1)) is Phase.FAILED


def test_a_terminal_phase_is_not_said_while_something_may_still_run() -> None:
    pod = pod_with(SIDE, policy="Never")
    assert phase(pod, container("side"), exited()) is Phase.RUNNING
    assert phase(pod, container("side", UNKNOWN), exited()) is Phase.RUNNING
    assert phase(pod, exited("side", 137), exited()) is Phase.SUCCEEDED


@pytest.mark.parametrize("said", [Phase.SUCCEEDED, Phase.FAILED])
def test_a_terminal_phase_is_never_taken_back(said: Phase) -> None:
    previous = PodStatus(phase=said, reason="Evicted", message="low on disk")
    status = look(make_pod(), observed(sandbox(), container()), healthy(container()), previous)
    assert (status.phase, status.reason, status.message) == (said, "Evicted", "low on disk")


def test_an_end_that_another_wrote_into_the_api_keeps_its_reason() -> None:
    pod = msgspec.structs.replace(make_pod(), status=ApiPodStatus(phase="Failed", reason="Evicted", message="why"))
    assert is_finished(pod, observed(), Knowledge())
    status = look(pod, observed())
    assert (status.phase, status.reason, status.message) == (Phase.FAILED, "Evicted", "why")


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
@pytest.mark.parametrize(("code", "wanted"), [(0, Phase.SUCCEEDED), (143, Phase.FAILED)])
def test_a_deleted_pod_ends_as_its_containers_did(policy: str, code: int, wanted: Phase) -> None:
    pod = pod_with(policy=policy)
    running = PodStatus(phase=Phase.RUNNING)
    assert phase(pod, container(), stop=DELETED, previous=running) is Phase.RUNNING
    assert phase(pod, exited(code=code), stop=DELETED, previous=running) is wanted


def test_a_pod_deleted_before_it_ran_has_failed() -> None:
    pending = PodStatus(phase=Phase.PENDING)
    assert phase(make_pod(), stop=DELETED, previous=pending) is Phase.FAILED
    assert phase(pod_with("a"), exited("a"), stop=DELETED, previous=pending) is Phase.FAILED
    assert phase(pod_with("a"), container("a"), stop=DELETED, previous=pending) is Phase.PENDING


def test_a_static_pod_that_goes_has_nobody_who_waits_for_its_end() -> None:
    pod = make_pod(meta={"annotations": {"kubernetes.io/config.source": "file"}})
    assert phase(pod, exited(code=137), stop=DELETED) is Phase.RUNNING
    assert phase(make_pod(meta=None), stop=DELETED) is Phase.FAILED


def test_a_pod_that_the_node_ends_fails_with_the_reason_once_nothing_runs() -> None:
    status = look(make_pod(), observed(sandbox(), container()), healthy(container(), stop=OVERDUE))
    assert (status.phase, status.reason) == (Phase.RUNNING, "")
    status = look(make_pod(), observed(sandbox(), exited()), Knowledge(stop=OVERDUE), status)
    assert (status.phase, status.reason, status.message) == (Phase.FAILED, "DeadlineExceeded", "too long")
    after_restart = look(make_pod(), observed(), Knowledge(ended=True), status)
    assert (after_restart.phase, after_restart.reason) == (Phase.FAILED, "DeadlineExceeded")


def test_a_pod_that_is_not_allowed_says_so_as_pod_and_as_container() -> None:
    status = look(make_pod(), observed(), Knowledge(refused="not here", refused_reason="ScriptsDisabled"))
    assert (status.phase, status.reason, status.message) == (Phase.PENDING, "ScriptsDisabled", "not here")
    waiting = status.containerStatuses[0].state.waiting
    assert waiting is not None
    assert (waiting.reason, waiting.message) == ("ScriptsDisabled", "not here")


def test_a_refused_pod_stays_pending_and_says_why() -> None:
    pod = pod_with("a", hostNetwork=True)
    status = look(pod, observed(), Knowledge(refused="spec.runtimeClassName: no"))
    assert status.phase is Phase.PENDING
    wanted = State(waiting=Waiting(reason="UnsupportedField", message="spec.runtimeClassName: no"))
    assert [s.state for s in (*status.initContainerStatuses, *status.containerStatuses)] == [wanted, wanted]
    assert status.podIP == ""


# ---------------------------------------------------------------- container states


def test_what_a_container_waits_for_is_told() -> None:
    assert of_main(look(make_pod(), observed())).state == State(waiting=Waiting(reason="ContainerCreating"))
    status = look(pod_with("a"), observed())
    assert of_main(status).state == State(waiting=Waiting(reason="PodInitializing"))
    assert status.initContainerStatuses[0].state == State(waiting=Waiting(reason="PodInitializing"))
    created = of_main(look(make_pod(), observed(sandbox(), container("main", CREATED))))
    assert created.state == State(waiting=Waiting(reason="ContainerCreating"))


@pytest.mark.parametrize("seen", [observed(sandbox()), observed(sandbox(), container("main", CREATED))])
def test_a_failure_to_start_is_told_as_what_the_container_waits_for(seen: ObservedPod) -> None:
    knows = Knowledge(failures={"main": Failure("ErrImagePull", "no route", NOW + 9)})
    status = of_main(look(make_pod(), seen, knows))
    assert status.state == State(waiting=Waiting(reason="ErrImagePull", message="no route"))
    assert (status.ready, status.started) == (False, False)


def test_a_running_container_is_ready_as_its_probes_say() -> None:
    seen = observed(sandbox(), container())

    def said(health: Health | None) -> tuple[bool, bool | None]:
        status = of_main(look(make_pod(), seen, Knowledge(health={"main-0": health} if health else {})))
        assert status.state == State(running=Running(startedAt="2023-11-14T22:13:20Z"))
        return status.ready, status.started

    assert said(None) == (False, False)
    assert said(Health()) == (True, True)
    assert said(Health(ready=False)) == (False, True)
    assert said(Health(started=False)) == (False, False)


def test_a_container_status_names_what_the_runtime_has() -> None:
    status = of_main(look(make_pod(), observed(sandbox(), container(attempt=2)), healthy(container(attempt=2))))
    assert status == ContainerStatus(
        name="main",
        state=State(running=Running(startedAt="2023-11-14T22:13:22Z")),
        ready=True,
        started=True,
        restartCount=2,
        image="docker.io/library/busybox:latest",
        imageID="sha256:1",
        containerID="containerd://main-2",
        resources=ResourceRequirements(),
    )


def test_a_running_init_container_is_not_ready_and_a_done_one_is() -> None:
    seen = observed(sandbox(), exited("a"), container("b"))
    done, runs = look(pod_with("a", "b"), seen, healthy(container("b"))).initContainerStatuses
    assert (done.ready, done.started) == (True, False)
    assert (runs.ready, runs.started) == (False, True)


def test_an_ended_sidecar_is_not_ready_whatever_it_answered() -> None:
    status = look(pod_with(SIDE), observed(sandbox(), exited("side", 0), container()))
    assert not status.initContainerStatuses[0].ready


def test_an_end_tells_code_reason_message_and_times() -> None:
    seen = observed(sandbox(), exited(code=3, message="bye", reason="OOMKilled"))
    assert of_main(look(pod_with(policy="Never"), seen)).state == State(
        terminated=Terminated(
            exitCode=3,
            reason="OOMKilled",
            message="bye",
            startedAt="2023-11-14T22:13:20Z",
            finishedAt="2023-11-14T22:13:21Z",
            containerID="containerd://main-0",
        )
    )


@pytest.mark.parametrize(("code", "reason"), [(0, "Completed"), (1, "Error")])
def test_an_end_without_the_runtimes_word_gets_the_usual_one(code: int, reason: str) -> None:
    ended = of_main(look(pod_with(policy="Never"), observed(sandbox(), exited(code=code)))).state.terminated
    assert ended is not None
    assert ended.reason == reason


def test_termination_messages_share_twelve_kibibytes() -> None:
    pod = make_pod(restartPolicy="Never", containers=[{"name": f"c{n}", "image": "busybox"} for n in range(4)])
    words = "é" * 2000
    seen = observed(sandbox(), *(exited(f"c{n}", message=words) for n in range(4)))
    for status in look(pod, seen).containerStatuses:
        assert status.state.terminated is not None
        assert status.state.terminated.message == "é" * 1536


# ---------------------------------------------------------------- restarts


def test_a_crashed_container_in_backoff_waits_and_its_end_moves_to_last_state() -> None:
    seen = observed(sandbox(), exited(code=2, attempt=3), exited(code=1, attempt=2))
    knows = Knowledge(backoffs={"main": Backoff(160, NOW - 50)}, ended_at={"main-3": NOW - 20})
    status = of_main(look(make_pod(), seen, knows))
    assert status.state == State(
        waiting=Waiting(
            reason="CrashLoopBackOff",
            message="back-off 2m40s restarting failed container=main pod=web_shop(u-1)",
        )
    )
    assert status.lastState.terminated is not None
    assert status.lastState.terminated.exitCode == 2
    assert status.restartCount == 3


def test_a_crash_that_is_restarted_at_once_shows_its_end_and_the_one_before() -> None:
    seen = observed(sandbox(), exited(code=2, attempt=1), exited(code=1))
    status = of_main(look(make_pod(), seen, Knowledge(ended_at={"main-1": NOW})))
    assert status.state.terminated is not None
    assert status.lastState.terminated is not None
    assert (status.state.terminated.exitCode, status.lastState.terminated.exitCode) == (2, 1)
    due = Knowledge(backoffs={"main": Backoff(10, NOW - 50)}, ended_at={"main-1": NOW - 10})
    assert of_main(look(make_pod(), seen, due)).state.terminated is not None


def test_a_restarted_container_shows_its_last_end() -> None:
    status = of_main(look(make_pod(), observed(sandbox(), container(attempt=1), exited(code=7))))
    assert status.lastState.terminated is not None
    assert (status.lastState.terminated.exitCode, status.restartCount) == (7, 1)


def test_a_failure_of_the_restart_is_told_before_the_backoff() -> None:
    knows = Knowledge(
        failures={"main": Failure("ImagePullBackOff", "Back-off pulling", NOW + 5)},
        backoffs={"main": Backoff(10, NOW)},
        ended_at={"main-0": NOW},
    )
    status = of_main(look(make_pod(), observed(sandbox(), exited(code=1)), knows))
    assert status.state == State(waiting=Waiting(reason="ImagePullBackOff", message="Back-off pulling"))
    assert status.lastState.terminated is not None


@pytest.mark.parametrize(
    ("pod", "knows"),
    [
        (pod_with(policy="Never"), Knowledge()),
        (pod_with(policy="OnFailure"), Knowledge()),
        (make_pod(), Knowledge(stop=DELETED)),
        (make_pod(), Knowledge(ended=True)),
    ],
)
def test_what_will_not_run_again_shows_its_end_and_waits_for_nothing(pod: Pod, knows: Knowledge) -> None:
    knows = replace(knows, backoffs={"main": Backoff(10, NOW)}, ended_at={"main-0": NOW})
    assert of_main(look(pod, observed(sandbox(), exited()), knows)).state.terminated is not None


def test_a_sidecar_of_a_finished_pod_waits_for_no_restart() -> None:
    knows = Knowledge(backoffs={"side": Backoff(10, NOW)}, ended_at={"side-0": NOW})
    status = look(pod_with(SIDE, policy="Never"), observed(sandbox(), exited("side", 143), exited()), knows)
    assert status.initContainerStatuses[0].state.terminated is not None


@pytest.mark.parametrize(("policy", "waits"), [("Always", True), ("OnFailure", True), ("Never", False)])
def test_a_failed_init_container_waits_where_it_is_tried_again(policy: str, waits: bool) -> None:
    knows = Knowledge(backoffs={"a": Backoff(10, NOW)}, ended_at={"a-0": NOW})
    status = look(pod_with("a", policy=policy), observed(sandbox(), exited("a", 1)), knows)
    assert (status.initContainerStatuses[0].state.waiting is not None) is waits
    knows = Knowledge(backoffs={"side": Backoff(10, NOW)}, ended_at={"side-0": NOW})
    status = look(pod_with(SIDE), observed(sandbox(), exited("side", 0)), knows)
    assert status.initContainerStatuses[0].state.waiting is not None


# ---------------------------------------------------------------- containers that the runtime has no more


def test_a_removed_init_container_keeps_its_end() -> None:
    pod = pod_with("a")
    before = look(pod, observed(sandbox(), exited("a"), container()), healthy(container()))
    after = look(pod, observed(sandbox(), container()), healthy(container()), before)
    assert after == before


def test_a_running_container_that_vanished_is_counted_as_lost() -> None:
    before = look(make_pod(), observed(sandbox(), container(attempt=1)), healthy(container(attempt=1)))
    status = look(make_pod(), observed(sandbox()), Knowledge(), before)
    lost = of_main(status)
    assert lost.state == State(waiting=Waiting(reason="ContainerCreating"))
    assert lost.lastState.terminated is not None
    assert (lost.lastState.terminated.exitCode, lost.lastState.terminated.reason) == (137, "ContainerStatusUnknown")
    assert (lost.restartCount, status.phase) == (2, Phase.RUNNING)
    assert of_main(look(make_pod(), observed(sandbox()), Knowledge(), status)) == lost


def test_a_deleted_pod_whose_containers_vanished_has_failed() -> None:
    before = look(make_pod(), observed(sandbox(), container()), healthy(container()))
    status = look(make_pod(), observed(), Knowledge(stop=DELETED), before)
    assert status.phase is Phase.FAILED
    assert of_main(status).restartCount == 0


def test_an_ended_container_that_was_removed_keeps_its_end() -> None:
    before = look(pod_with(policy="Never"), observed(sandbox(), exited()))
    assert look(pod_with(policy="Never"), observed(), Knowledge(ended=True), before).containerStatuses == (
        before.containerStatuses
    )
    before = look(make_pod(), observed(sandbox(), exited(code=1)))
    after = of_main(look(make_pod(), observed(sandbox()), Knowledge(), before))
    assert after.lastState == of_main(before).state


def test_a_container_in_an_unknown_state_ran_and_may_be_gone() -> None:
    ran = container("main", UNKNOWN, started_at_ns=1)
    status = look(make_pod(), observed(sandbox(), ran))
    ended = of_main(status).state.terminated
    assert ended is not None
    assert (ended.reason, status.phase) == ("ContainerStatusUnknown", Phase.RUNNING)


# ---------------------------------------------------------------- addresses, times, the rest


def test_addresses_come_from_the_sandbox_and_stay_when_it_is_gone() -> None:
    seen = observed(sandbox(ips=("10.0.0.5", "fd00::5")), exited())
    status = look(make_pod(), seen)
    assert (status.podIP, status.podIPs) == ("10.0.0.5", (IP(ip="10.0.0.5"), IP(ip="fd00::5")))
    assert (status.hostIP, status.hostIPs) == ("192.0.2.1", (IP(ip="192.0.2.1"), IP(ip="2001:db8::1")))
    assert look(make_pod(), observed(sandbox(ready=False)), Knowledge(), status).podIPs == status.podIPs
    assert look(make_pod(), observed(sandbox(1, ips=("10.0.0.6",))), Knowledge(), status).podIP == "10.0.0.6"


def test_a_pod_on_the_hosts_network_has_the_hosts_addresses() -> None:
    pod = make_pod(hostNetwork=True)
    status = look(pod, observed(sandbox(ips=())))
    assert (status.podIP, status.podIPs) == ("192.0.2.1", status.hostIPs)


def test_a_node_without_addresses_names_none() -> None:
    status = pod_status(make_pod(), observed(), Knowledge(), None, replace(CONTEXT, host_ips=()))
    assert (status.hostIP, status.hostIPs, status.podIP) == ("", (), "")


def test_the_start_time_is_the_first_that_was_told() -> None:
    first = look(make_pod(), observed())
    assert first.startTime == WALL
    later = replace(CONTEXT, wall=CONTEXT.wall + 60)
    assert pod_status(make_pod(), observed(), Knowledge(), first, later).startTime == WALL
    told = msgspec.structs.replace(make_pod(), status=ApiPodStatus(startTime="2020-01-01T00:00:00Z"))
    assert look(told, observed()).startTime == "2020-01-01T00:00:00Z"


def test_generation_and_qos_class_are_told() -> None:
    pod = make_pod(
        meta={"generation": 4},
        containers=[{"name": "main", "image": "busybox", "resources": {"requests": {"cpu": "1"}}}],
    )
    status = look(pod, observed())
    assert (status.observedGeneration, status.qosClass) == (4, "Burstable")


def test_nothing_new_gives_the_same_status() -> None:
    seen = observed(sandbox(), container(attempt=1), exited(code=1))
    knows = healthy(container(attempt=1))
    first = look(make_pod(), seen, knows)
    later = replace(CONTEXT, wall=CONTEXT.wall + 3600, now=NOW + 3600)
    assert pod_status(make_pod(), seen, knows, first, later) == first


# ---------------------------------------------------------------- an init container that nobody remembers


@pytest.mark.parametrize("main", [container(), container(state=CREATED), exited(code=1)])
def test_an_init_container_that_is_lost_with_its_status_had_done_its_work(main: ObservedContainer) -> None:
    status = look(pod_with("setup"), observed(sandbox(), main), healthy(main))
    (lost,) = status.initContainerStatuses
    assert lost.state.terminated is not None
    assert (lost.state.terminated.exitCode, lost.state.terminated.reason, lost.ready) == (0, "Completed", True)


def test_a_lost_sidecar_and_an_init_container_before_any_main_one_wait() -> None:
    for seen in (look(pod_with(SIDE), observed(sandbox(), container())), look(pod_with("setup"), observed(sandbox()))):
        assert seen.initContainerStatuses[0].state == State(waiting=Waiting(reason="PodInitializing"))
