"""What runs and nobody wants ends only where the API server says of it that it does not exist."""

from __future__ import annotations

import asyncio
import json

import pytest

from agent.errors import EdgeletError, Forbidden, Retryable
from agent.model.record import Origin, PodRecord
from agent.pods.desired import DesiredPods
from agent.pods.orphans import Orphans
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import eventually


def pod(uid: str) -> PodRecord:
    meta = {"name": uid, "namespace": "shop", "uid": uid}
    return PodRecord.decode(json.dumps({"metadata": meta, "spec": {}}).encode())


class Machine:
    """Runs pods that its record knows nothing of."""

    def __init__(self, *uids: str) -> None:
        self.pods = [pod(uid) for uid in uids]
        self.ended: list[str] = []
        self.looks = 0
        self.answers: dict[str, bytes | EdgeletError | None] = {}
        self.asked: list[str] = []

    async def get_pods(self) -> tuple[PodRecord, ...]:
        self.looks += 1
        return tuple(self.pods)

    async def delete_pod(self, record: PodRecord) -> None:
        self.ended.append(record.uid)
        self.pods.remove(record)

    async def find_pod(self, namespace: str, name: str, uid: str) -> bytes | None:
        assert (namespace, name) == ("shop", uid)
        self.asked.append(uid)
        answer = self.answers[uid]
        if isinstance(answer, EdgeletError):
            raise answer
        return answer


async def looked(machine: Machine, *, with_api: bool = True) -> list[str]:
    """Names of the desired pods after two looks; before them an empty list was believed."""
    desired = DesiredPods(MemoryStore(), lambda _: None)
    asks = machine if with_api else None
    orphans = Orphans(machine, desired, MemoryStore(), lambda uid: uid == "in-hand", None, 0.01, asks)
    desired.replace_all(Origin.API, ())
    tasks = [asyncio.ensure_future(desired.run()), asyncio.ensure_future(orphans.sweep())]
    await eventually(lambda: machine.looks > 2)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return [record.uid for record in desired.all()]


async def test_a_pod_that_does_not_exist_any_more_ends() -> None:
    machine = Machine("gone", "in-hand")
    machine.answers = {"gone": None}
    assert await looked(machine) == []
    assert machine.ended == ["gone"]
    assert machine.asked == ["gone"]


async def test_a_pod_that_exists_is_wanted_again() -> None:
    machine = Machine("there")
    machine.answers = {"there": machine.pods[0].raw}
    assert await looked(machine) == ["there"]
    assert machine.ended == []
    assert machine.asked == ["there"]


@pytest.mark.parametrize("error", [Retryable("no answer"), Forbidden("Forbidden", "not for you")])
async def test_a_pod_of_which_nothing_is_known_goes_on(error: EdgeletError) -> None:
    machine = Machine("unknown", "gone")
    machine.answers = {"unknown": error, "gone": None}
    assert await looked(machine) == []
    assert machine.ended == ["gone"]
    assert machine.asked.count("unknown") > 1


async def test_without_an_api_server_nobody_is_asked() -> None:
    machine = Machine("orphan")
    assert await looked(machine, with_api=False) == []
    assert machine.ended == ["orphan"]
