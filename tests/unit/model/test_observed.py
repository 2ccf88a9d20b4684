"""An observed pod answers what the planner asks."""

from __future__ import annotations

from tests.unit.pods.observations import CREATED, UNKNOWN, container, exited, observed, sandbox


def test_the_first_sandbox_and_container_are_the_newest() -> None:
    pod = observed(sandbox(0, ready=False), sandbox(1), exited(attempt=0), container(attempt=1))
    assert pod.sandbox is not None
    assert pod.sandbox.attempt == 1
    newest = pod.newest("main")
    assert newest is not None
    assert newest.attempt == 1
    assert pod.newest("other") is None


def test_a_pod_that_the_runtime_does_not_have_is_empty() -> None:
    pod = observed()
    assert (pod.sandbox, pod.running, pod.alive) == (None, (), ())


def test_what_may_run_counts_as_alive() -> None:
    runs, lost = container("a"), container("b", UNKNOWN)
    pod = observed(sandbox(), runs, lost, container("c", CREATED), exited("d"))
    assert pod.running == (runs,)
    assert pod.alive == (runs, lost)
