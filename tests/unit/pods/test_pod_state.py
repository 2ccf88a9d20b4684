"""What a worker remembers of its pod."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from agent.model.observed import ContainerState, ObservedContainer, ObservedPod
from agent.model.record import PodRecord
from agent.model.status import ContainerStatus, Phase, PodStatus, State, Waiting
from agent.pods.knowledge import Health
from agent.pods.pod_state import PodState
from tests.unit.pods.scene import record


def state(wanted: PodRecord | None = None) -> PodState:
    return PodState(wanted or record())


def ended(container_id: str, finished_at_s: float = 0.0) -> ObservedContainer:
    return ObservedContainer(
        container_id,
        "main",
        "s",
        0,
        ContainerState.EXITED,
        "busybox",
        "sha256:busybox",
        "",
        1,
        finished_at_ns=int(finished_at_s * 1e9),
    )


def by(wall: float) -> Callable[[int], float]:
    """Ages by a wall clock that shows that."""
    return lambda unix_ns: max(0.0, wall - unix_ns / 1e9)


def pod(*containers: ObservedContainer) -> ObservedPod:
    return ObservedPod("u-1", "shop", "web", (), containers)


def test_a_step_that_fails_again_waits_twice_as_long_up_to_a_minute() -> None:
    mine = state()
    assert [mine.next_retry("sandbox") for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert mine.next_retry("volumes") == 1


def test_an_end_is_dated_by_its_age() -> None:
    mine = state()
    mine.note_ends(pod(ended("c", finished_at_s=1000)), now=50.0, age=by(1007.0))
    assert mine.ended_at == {"c": 43.0}


def test_an_end_is_dated_once_whatever_the_wall_clock_does_then() -> None:
    mine = state()
    mine.note_ends(pod(ended("c", finished_at_s=1000)), now=50.0, age=by(1007.0))
    mine.note_ends(pod(ended("c", finished_at_s=1000)), now=60.0, age=by(9_000_000.0))
    assert mine.ended_at == {"c": 43.0}


def test_an_end_in_the_future_or_without_a_date_was_now() -> None:
    mine = state()
    mine.note_ends(pod(ended("future", finished_at_s=2000), ended("dateless")), now=50.0, age=by(1007.0))
    assert mine.ended_at == {"future": 50.0, "dateless": 50.0}


def test_an_end_that_the_look_before_did_not_show_is_no_older_than_that_look() -> None:
    mine = state()
    mine.note_ends(pod(), now=45.0, age=by(1000.0))
    mine.note_ends(pod(ended("c", finished_at_s=1000)), now=50.0, age=by(9_000_000.0))
    assert mine.ended_at == {"c": 45.0}


def test_ends_of_removed_containers_are_forgotten() -> None:
    mine = state()
    mine.note_ends(pod(ended("c")), now=50.0, age=by(1.0))
    mine.note_ends(pod(), now=51.0, age=by(2.0))
    assert mine.ended_at == {}


def test_a_post_start_hook_weighs_more_than_probes() -> None:
    mine = state()
    mine.post_starting["c"] = Health(started=False, ready=False)
    assert mine.knowledge({"c": Health()}, ended=False).health["c"] == Health(started=False, ready=False)


def test_knowledge_does_not_change_any_more() -> None:
    mine = state()
    knows = mine.knowledge({}, ended=False)
    mine.ended_at["c"] = 1.0
    assert knows.ended_at == {}


def test_attempts_are_recalled_from_the_status_and_from_the_logs() -> None:
    mine = state()
    waits = ContainerStatus(name="waits", state=State(waiting=Waiting(reason="CrashLoopBackOff")), restartCount=4)
    ran = ContainerStatus(name="ran", state=State(), restartCount=2, containerID="containerd://1")
    new = ContainerStatus(name="new", state=State(waiting=Waiting()))
    told = PodStatus(phase=Phase.RUNNING, containerStatuses=(waits, ran, new))
    given_up = replace(ended("never-ran"), attempt=6)
    seen = ObservedPod("u-1", "shop", "web", abandoned=(given_up,))
    mine.recall_attempts(told, {"main": {0, 5, 6}, "ran": {0, 1}}, seen)
    assert mine.attempts == {"waits": 3, "ran": 2, "new": -1, "main": 5}


def test_attempts_that_were_seen_are_remembered_when_the_container_is_gone() -> None:
    mine = state()
    mine.note_ends(pod(replace(ended("c"), attempt=3)), now=50.0, age=by(1.0))
    mine.note_ends(pod(), now=51.0, age=by(2.0))
    assert mine.attempts == {"main": 3}
