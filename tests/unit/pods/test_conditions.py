"""The five conditions: what they say, why, and since when."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.model.observed import ObservedPod
from agent.model.pod import ApiPodStatus, Pod, PodCondition
from agent.model.status import ContainerStatus, Phase, PodStatus, Running, State, Terminated, Waiting
from agent.pods.conditions import OWNED, conditions
from tests.unit.pods.observations import observed, sandbox
from tests.unit.pods.pods import make_pod

T0, T1 = 1_700_000_000.0, 1_700_000_060.0
AT_T0, AT_T1 = "2023-11-14T22:13:20Z", "2023-11-14T22:14:20Z"
RUNS = State(running=Running())
WAITS = State(waiting=Waiting())
DONE = State(terminated=Terminated())


def status_of(name: str, state: State = RUNS, *, ready: bool = True, started: bool = True) -> ContainerStatus:
    return ContainerStatus(name=name, state=state, ready=ready, started=started)


def look(
    pod: Pod,
    *mains: ContainerStatus,
    inits: tuple[ContainerStatus, ...] = (),
    phase: Phase = Phase.RUNNING,
    previous: PodStatus | None = None,
    wall: float = T0,
    seen: ObservedPod | None = None,
) -> dict[str, PodCondition]:
    made = conditions(pod, seen or observed(sandbox()), phase, inits, mains, previous, wall)
    assert tuple(c.type for c in made) == OWNED
    return {c.type: c for c in made}


def said(condition: PodCondition) -> tuple[str, str, str]:
    return condition.status, condition.reason or "", condition.message or ""


def test_a_running_ready_pod_has_all_conditions_true() -> None:
    made = look(make_pod(meta={"generation": 3}), status_of("main"))
    assert {c.status for c in made.values()} == {"True"}
    assert {c.observedGeneration for c in made.values()} == {3}
    assert {c.reason or "" for c in made.values()} == {""}


@pytest.mark.parametrize(
    ("seen", "host_network", "usable"),
    [
        (observed(), False, "False"),
        (observed(sandbox(ready=False)), False, "False"),
        (observed(sandbox(ips=())), False, "False"),
        (observed(sandbox(ips=())), True, "True"),
        (observed(sandbox()), False, "True"),
    ],
)
def test_containers_can_start_in_a_sandbox_with_a_network(seen: ObservedPod, host_network: bool, usable: str) -> None:
    made = look(make_pod(hostNetwork=host_network), status_of("main"), seen=seen)
    assert made["PodReadyToStartContainers"].status == usable


def test_an_unready_container_is_named_and_makes_the_pod_unready() -> None:
    pod = make_pod(containers=[{"name": "main", "image": "busybox"}, {"name": "other", "image": "busybox"}])
    made = look(pod, status_of("main", ready=False), status_of("other", ready=False))
    wanted = ("False", "ContainersNotReady", "containers with unready status: [main other]")
    assert said(made["ContainersReady"]) == wanted
    assert said(made["Ready"]) == wanted


def test_a_sidecar_counts_for_readiness_and_an_init_container_does_not() -> None:
    pod = make_pod(
        initContainers=[
            {"name": "init", "image": "busybox"},
            {"name": "side", "image": "busybox", "restartPolicy": "Always"},
        ]
    )
    inits = (status_of("init", DONE, ready=False), status_of("side", ready=False))
    made = look(pod, status_of("main"), inits=inits)
    assert made["ContainersReady"].message == "containers with unready status: [side]"


@pytest.mark.parametrize(("phase", "reason"), [(Phase.SUCCEEDED, "PodCompleted"), (Phase.FAILED, "PodFailed")])
def test_an_ended_pod_is_unready_because_it_ended(phase: Phase, reason: str) -> None:
    made = look(make_pod(), status_of("main", DONE, ready=False), phase=phase)
    assert said(made["ContainersReady"]) == ("False", reason, "")
    assert said(made["Ready"]) == ("False", reason, "")
    assert said(made["Initialized"]) == ("True", "PodCompleted" if phase is Phase.SUCCEEDED else "", "")


INITS: dict[str, Any] = {
    "initContainers": [
        {"name": "a", "image": "busybox"},
        {"name": "side", "image": "busybox", "restartPolicy": "Always"},
    ]
}


@pytest.mark.parametrize(
    ("inits", "incomplete"),
    [
        ((status_of("a", ready=False), status_of("side", WAITS, ready=False, started=False)), "[a side]"),
        ((status_of("a", DONE), status_of("side", ready=False, started=False)), "[side]"),
        ((status_of("a", DONE), status_of("side", ready=False)), None),
    ],
)
def test_a_pod_is_initialized_when_inits_are_done_and_sidecars_started(
    inits: tuple[ContainerStatus, ...], incomplete: str | None
) -> None:
    made = look(make_pod(**INITS), status_of("main", WAITS, ready=False), inits=inits, phase=Phase.PENDING)
    if incomplete is None:
        assert said(made["Initialized"]) == ("True", "", "")
    else:
        message = f"containers with incomplete status: {incomplete}"
        assert said(made["Initialized"]) == ("False", "ContainersNotInitialized", message)


def test_a_failed_init_container_leaves_the_pod_uninitialized() -> None:
    inits = (status_of("a", DONE, ready=False), status_of("side", WAITS, started=False))
    made = look(make_pod(**INITS), status_of("main", WAITS, ready=False), inits=inits, phase=Phase.FAILED)
    assert made["Initialized"].reason == "ContainersNotInitialized"


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("main", [RUNS, DONE])
def test_a_pod_whose_main_container_ran_was_initialized(phase: Phase, main: State) -> None:
    inits = (status_of("a", DONE), status_of("side", DONE, ready=False, started=False))
    assert look(make_pod(**INITS), status_of("main", main), inits=inits, phase=phase)["Initialized"].status == "True"


def test_readiness_gates_are_all_asked_for() -> None:
    pod = make_pod(readinessGates=[{"conditionType": t} for t in ("x/a", "x/b", "x/c")])
    given: tuple[PodCondition, ...] = (
        PodCondition(type="x/a", status="True"),
        PodCondition(type="x/b", status="Unknown"),
    )
    pod = msgspec.structs.replace(pod, status=ApiPodStatus(conditions=given))
    made = look(pod, status_of("main"))
    assert made["ContainersReady"].status == "True"
    message = (
        'the status of pod readiness gate "x/b" is not "True", but Unknown, '
        'corresponding condition of pod readiness gate "x/c" does not exist.'
    )
    assert said(made["Ready"]) == ("False", "ReadinessGatesNotReady", message)
    given = tuple(PodCondition(type=t, status="True") for t in ("x/a", "x/b", "x/c"))
    pod = msgspec.structs.replace(pod, status=ApiPodStatus(conditions=given))
    assert look(pod, status_of("main"))["Ready"].status == "True"


def test_a_transition_time_stays_until_the_status_changes() -> None:
    first = look(make_pod(), status_of("main", ready=False))
    assert {c.lastTransitionTime for c in first.values()} == {AT_T0}
    previous = PodStatus(phase=Phase.RUNNING, conditions=tuple(first.values()))
    then = look(make_pod(), status_of("main"), previous=previous, wall=T1)
    assert {t: c.lastTransitionTime for t, c in then.items()} == {
        "PodReadyToStartContainers": AT_T0,
        "Initialized": AT_T0,
        "Ready": AT_T1,
        "ContainersReady": AT_T1,
        "PodScheduled": AT_T0,
    }


def test_without_a_status_of_our_own_the_api_servers_times_stand() -> None:
    scheduled = PodCondition(type="PodScheduled", status="True", lastTransitionTime="2020-01-01T00:00:00Z")
    pod = msgspec.structs.replace(make_pod(), status=ApiPodStatus(conditions=(scheduled,)))
    made = look(pod, status_of("main"))
    assert made["PodScheduled"].lastTransitionTime == "2020-01-01T00:00:00Z"
    assert made["Ready"].lastTransitionTime == AT_T0
