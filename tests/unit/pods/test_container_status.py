"""What follows from two container statuses in a row."""

from agent.model.status import ContainerStatus, Phase, PodStatus, Running, State, Waiting
from agent.pods.container_status import CRASH_LOOP, entered_backoff


def status(state: State, init: bool = False) -> PodStatus:
    own = (ContainerStatus(name="main", state=state),)
    if init:
        return PodStatus(phase=Phase.RUNNING, initContainerStatuses=own)
    return PodStatus(phase=Phase.RUNNING, containerStatuses=own)


WAITS = State(waiting=Waiting(reason=CRASH_LOOP))
RUNS = State(running=Running())


def test_a_container_enters_its_backoff_once_each_time() -> None:
    assert entered_backoff(status(RUNS), status(WAITS)) == ("main",)
    assert entered_backoff(status(WAITS), status(WAITS)) == ()
    assert entered_backoff(status(WAITS), status(RUNS)) == ()


def test_the_first_status_that_is_known_may_be_one_of_backoff() -> None:
    assert entered_backoff(None, status(WAITS)) == ("main",)


def test_an_init_container_has_a_backoff_too_and_other_waits_are_none() -> None:
    assert entered_backoff(status(RUNS, init=True), status(WAITS, init=True)) == ("main",)
    assert entered_backoff(status(RUNS), status(State(waiting=Waiting(reason="ContainerCreating")))) == ()
