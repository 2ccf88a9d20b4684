"""How long pods take to start."""

from __future__ import annotations

from agent import own_metrics
from agent.instruments import Histogram
from agent.model.status import ContainerStatus, Phase, PodStatus, Running, State, Terminated, Waiting
from agent.pods.start_times import StartTimes
from tests.unit.pods.pods import make_pod

CREATED = "2026-01-01T00:00:00Z"
CREATED_S = 1_767_225_600.0
POD = make_pod({"creationTimestamp": CREATED})
RUNNING = PodStatus(
    phase=Phase.RUNNING,
    containerStatuses=(ContainerStatus("main", State(running=Running("2026-01-01T00:00:20Z"))),),
    initContainerStatuses=(
        ContainerStatus(
            "init", State(terminated=Terminated(startedAt="2026-01-01T00:00:10Z", finishedAt="2026-01-01T00:00:14Z"))
        ),
    ),
)
WAITING = PodStatus(phase=Phase.PENDING, containerStatuses=(ContainerStatus("main", State(waiting=Waiting())),))


class Clock:
    now = 100.0

    def wall(self) -> float:
        return CREATED_S + self.now - 100

    def monotonic(self) -> float:
        return self.now


def said(histogram: Histogram) -> tuple[int, float]:
    return histogram.count(), histogram.total()


def test_pulls_and_init_containers_are_apart_from_what_the_node_is_measured_by() -> None:
    before = {one: said(one) for one in (own_metrics.POD_START_SLI, own_metrics.POD_START_TOTAL)}
    clock = Clock()
    times = StartTimes(clock.monotonic, clock.wall)
    times.seen(POD.uid)
    times.told(POD, WAITING)
    clock.now += 9
    times.pulled(POD.uid, 6)
    clock.now += 1
    times.pulled(POD.uid, 3)  # at the same time as the first, and a second longer: 7 s in all
    clock.now += 10
    times.told(POD, RUNNING)
    times.told(POD, RUNNING)
    rise = {one: (said(one)[0] - was[0], round(said(one)[1] - was[1], 3)) for one, was in before.items()}
    assert rise == {own_metrics.POD_START_TOTAL: (1, 20), own_metrics.POD_START_SLI: (1, 20 - 7 - 4)}


def test_a_pod_that_ran_before_or_ended_without_running_is_not_measured() -> None:
    before = own_metrics.POD_START.count()
    times = StartTimes()
    times.told(POD, RUNNING)
    times.seen(POD.uid)
    times.told(POD, PodStatus(phase=Phase.FAILED))
    times.told(POD, RUNNING)
    assert own_metrics.POD_START.count() == before
