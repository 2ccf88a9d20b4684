"""How many ended runs of a container are kept, and for how long."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from agent.model.action import RemoveContainer
from agent.model.observed import ObservedContainer
from agent.pods.knowledge import Knowledge, Retention
from agent.pods.plan import plan
from tests.unit.pods.observations import container, exited, observed, sandbox
from tests.unit.pods.pods import make_pod

NOW = 5000.0
POD = make_pod(containers=[{"name": "main", "image": "busybox"}])


def knows(retention: Retention, **ended_at: float) -> Knowledge:
    ends = {name.replace("_", "-"): moment for name, moment in ended_at.items()}
    return Knowledge(volumes_ready=True, volumes_mounted=True, retention=retention, ended_at=ends)


def removed(retention: Retention, *found: ObservedContainer, **ended_at: float) -> list[str]:
    made = plan(POD, observed(sandbox(), *found), knows(retention, **ended_at), NOW)
    return [action.container_id for action in made.actions if isinstance(action, RemoveContainer)]


RUNS = (container(attempt=3), exited(attempt=2, code=1), exited(attempt=1, code=1), exited(attempt=0, code=1))


@pytest.mark.parametrize(
    ("dead", "gone"),
    [(0, ["main-2", "main-1", "main-0"]), (1, ["main-1", "main-0"]), (2, ["main-0"]), (3, []), (-1, [])],
)
def test_as_many_ended_runs_are_kept_beside_the_newest_as_is_set(dead: int, gone: list[str]) -> None:
    assert removed(Retention(dead), *RUNS) == gone


def test_an_ended_newest_one_is_never_removed_while_its_pod_lives() -> None:
    ended = replace(RUNS[1], attempt=3, id="main-3")
    assert removed(Retention(0), ended, main_3=NOW) == []


def test_an_ended_run_stays_for_its_least_time_and_is_looked_at_then() -> None:
    retention = Retention(1, min_age_s=60)
    seen = observed(sandbox(), *RUNS)
    made = plan(POD, seen, knows(retention, main_2=NOW - 5, main_1=NOW - 20, main_0=NOW - 90), NOW)
    assert [a.container_id for a in made.actions if isinstance(a, RemoveContainer)] == ["main-0"]
    assert made.wake_at == NOW + 40
