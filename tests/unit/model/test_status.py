"""The written status: its JSON and its times."""

from __future__ import annotations

import msgspec
import pytest

from agent.model.pod import PodCondition
from agent.model.status import ContainerStatus, Phase, PodStatus, State, Terminated, timestamp, unix_seconds


def test_what_is_not_said_is_left_out_and_what_the_api_requires_is_written() -> None:
    status = PodStatus(
        phase=Phase.SUCCEEDED,
        containerStatuses=(ContainerStatus(name="main", state=State(terminated=Terminated())),),
    )
    assert msgspec.json.decode(msgspec.json.encode(status)) == {
        "phase": "Succeeded",
        "containerStatuses": [
            {
                "name": "main",
                "state": {"terminated": {"exitCode": 0}},
                "image": "",
                "imageID": "",
                "ready": False,
                "restartCount": 0,
            }
        ],
    }


def test_a_condition_is_found_by_its_type() -> None:
    ready = PodCondition(type="Ready", status="True")
    status = PodStatus(phase=Phase.RUNNING, conditions=(ready,))
    assert status.condition("Ready") is ready
    assert status.condition("Initialized") is None


@pytest.mark.parametrize(
    ("phase", "terminal"),
    [(Phase.PENDING, False), (Phase.RUNNING, False), (Phase.SUCCEEDED, True), (Phase.FAILED, True)],
)
def test_succeeded_and_failed_are_final(phase: Phase, terminal: bool) -> None:
    assert phase.is_terminal is terminal


def test_times_are_whole_seconds_in_utc() -> None:
    assert timestamp(1_700_000_000.9) == "2023-11-14T22:13:20Z"
    assert unix_seconds("2023-11-14T22:13:20Z") == 1_700_000_000
    assert unix_seconds("2023-11-14T23:13:20.5+01:00") == 1_700_000_000.5
    with pytest.raises(ValueError, match="yesterday"):
        unix_seconds("yesterday")
