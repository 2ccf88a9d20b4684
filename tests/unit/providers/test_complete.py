"""What a provider leaves out of a status is filled in; what it says stays."""

from __future__ import annotations

from typing import Any

import msgspec

from agent.model.pod import Pod, PodCondition, pod_from_dict
from agent.model.status import ContainerStatus, Phase, PodStatus, Running, State, Terminated
from agent.providers.complete import complete

BEGUN, LATER = 1_700_000_000.0, 1_700_000_060.0
THEN, NOW = "2023-11-14T22:13:20Z", "2023-11-14T22:14:20Z"


def pod(**spec: Any) -> Pod:
    spec = {"containers": [{"name": "main", "image": "i"}], **spec}
    return pod_from_dict({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 4}, "spec": spec})


def said(phase: Phase = Phase.RUNNING, *, ready: bool = True) -> PodStatus:
    state = State(running=Running()) if phase is Phase.RUNNING else State(terminated=Terminated())
    return PodStatus(phase=phase, containerStatuses=(ContainerStatus(name="main", state=state, ready=ready),))


def test_conditions_follow_the_containers_and_are_dated_by_their_change() -> None:
    first = complete(pod(), said(), None, BEGUN)
    shown = {one.type: (one.status, one.lastTransitionTime) for one in first.conditions}
    kinds = ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    assert shown == dict.fromkeys(kinds, ("True", THEN))
    assert (first.startTime, first.qosClass, first.observedGeneration) == (THEN, "BestEffort", 4)
    assert complete(pod(), said(), first, LATER) == first
    unready = complete(pod(), said(ready=False), first, LATER)
    ready = unready.condition("Ready")
    assert ready is not None
    assert (ready.status, ready.reason, ready.lastTransitionTime) == ("False", "ContainersNotReady", NOW)
    assert unready.startTime == THEN


def test_what_has_succeeded_is_not_ready_any_more() -> None:
    ready = complete(pod(), said(Phase.SUCCEEDED, ready=False), None, BEGUN).condition("Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == ("False", "PodCompleted")


def test_a_provider_need_not_speak_of_init_containers() -> None:
    initialized = complete(pod(initContainers=[{"name": "first"}]), said(), None, BEGUN).condition("Initialized")
    assert initialized is not None
    assert initialized.status == "True"


def test_what_the_provider_says_stays() -> None:
    own = msgspec.structs.replace(
        said(), conditions=(PodCondition(type="Ready", status="False"),), startTime=THEN, observedGeneration=3
    )
    assert complete(pod(), own, None, LATER) == msgspec.structs.replace(own, qosClass="BestEffort")
