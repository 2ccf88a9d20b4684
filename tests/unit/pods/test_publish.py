"""Statuses to the API server: settled, coalesced, tried again, and the final DELETE."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from agent.errors import Conflict, EdgeletError, Forbidden, NotFound, Permanent, Retryable
from agent.model.pod import PodCondition
from agent.model.record import PodRecord
from agent.model.status import IP, ContainerStatus, Phase, PodStatus, State, Terminated
from agent.pods.publish import Publisher, status_patch
from agent.providers.contract import PodUpdate
from tests.fakes.virtual_time import beside, elapsed, in_virtual_time

PENDING, RUNNING, FAILED = (PodStatus(phase=p) for p in (Phase.PENDING, Phase.RUNNING, Phase.FAILED))


def record(uid: str = "u-1", *, terminating: bool = False, finalizers: tuple[str, ...] = ()) -> PodRecord:
    meta: dict[str, Any] = {"name": "web", "namespace": "shop", "uid": uid, "finalizers": finalizers}
    if terminating:
        meta["deletionTimestamp"] = "2024-01-01T00:00:00Z"
    return PodRecord.decode(msgspec.json.encode({"metadata": meta, "spec": {}}))


@dataclass
class Api:
    """Remembers what arrived and when; `errors` are raised one after the other, by call."""

    errors: dict[str, list[EdgeletError]] = field(default_factory=dict)
    calls: list[tuple[float, str, str]] = field(default_factory=list)
    slow_s: float = 0.0

    async def patch_pod_status(self, namespace: str, name: str, body: bytes) -> None:
        told = msgspec.json.decode(body)
        assert (namespace, name) == ("shop", "web")
        await self._call("patch", f"{told['metadata']['uid']} {told['status']['phase']}")

    async def delete_pod(self, namespace: str, name: str, uid: str) -> None:
        await self._call("delete", uid)

    async def _call(self, kind: str, what: str) -> None:
        self.calls.append((elapsed(), kind, what))
        await asyncio.sleep(self.slow_s)
        if errors := self.errors.get(kind):
            raise errors.pop(0)

    @property
    def told(self) -> list[str]:
        return [f"{kind} {what}" for _, kind, what in self.calls]


@dataclass
class Scene:
    api: Api = field(default_factory=Api)
    finalized: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.publisher = Publisher(self.api, self.finalized.append)

    def publish(self, status: PodStatus, *, gone: bool = False, settle_s: float = 0.0, uid: str = "u-1") -> None:
        self.publisher.publish(PodUpdate(record(uid, terminating=gone), status, gone=gone, settle_s=settle_s))


@in_virtual_time
async def test_each_transition_is_one_patch_and_an_equal_status_is_none() -> None:
    scene = Scene()

    async def work() -> None:
        for status in (PENDING, RUNNING, RUNNING):
            scene.publish(status)
            await asyncio.sleep(1)

    await beside(scene.publisher.run(), work)
    assert scene.api.told == ["patch u-1 Pending", "patch u-1 Running"]


@in_virtual_time
async def test_it_is_said_which_status_the_api_server_has_and_not_which_it_was_only_sent() -> None:
    scene = Scene(Api(errors={"patch": [Retryable("away"), Permanent("Invalid", "no")]}))
    told: list[str] = []
    scene.publisher = Publisher(scene.api, scene.finalized.append, told=lambda uid, status: told.append(status.phase))

    async def work() -> None:
        scene.publish(PENDING)
        await asyncio.sleep(0.1)
        assert told == []
        scene.publish(RUNNING)
        await asyncio.sleep(5)

    await beside(scene.publisher.run(), work)
    assert told == ["Running"]


@in_virtual_time
async def test_what_comes_while_a_patch_is_under_way_is_told_as_its_newest() -> None:
    scene = Scene(Api(slow_s=1))

    async def work() -> None:
        scene.publish(PENDING)
        await asyncio.sleep(0.5)
        scene.publish(RUNNING)
        scene.publish(FAILED)
        await asyncio.sleep(5)

    await beside(scene.publisher.run(), work)
    assert scene.api.told == ["patch u-1 Pending", "patch u-1 Failed"]


@in_virtual_time
async def test_a_status_that_is_about_to_be_bettered_is_held_back_and_the_better_one_told_at_once() -> None:
    scene = Scene()

    async def work() -> None:
        scene.publish(PENDING, settle_s=0.5)
        await asyncio.sleep(0.2)
        scene.publish(RUNNING)
        await asyncio.sleep(5)

    await beside(scene.publisher.run(), work)
    assert scene.api.calls == [(0.2, "patch", "u-1 Running")]


@in_virtual_time
async def test_a_status_is_not_held_back_for_longer_than_it_settles() -> None:
    scene = Scene()

    async def work() -> None:
        scene.publish(PENDING, settle_s=0.5)
        await asyncio.sleep(0.3)
        scene.publish(RUNNING, settle_s=0.5)
        await asyncio.sleep(5)

    await beside(scene.publisher.run(), work)
    assert scene.api.calls == [(0.5, "patch", "u-1 Running")]


@in_virtual_time
async def test_while_the_api_server_is_away_the_newest_status_is_tried_again() -> None:
    scene = Scene(Api({"patch": [Retryable("away") for _ in range(9)]}))

    async def work() -> None:
        scene.publish(PENDING)
        await asyncio.sleep(0.5)
        scene.publish(RUNNING)
        await asyncio.sleep(60)

    await beside(scene.publisher.run(), work)
    times = [round(when, 1) for when, _, _ in scene.api.calls]
    assert times == [0.0, 0.2, 0.6, 1.4, 3.0, 6.2, 12.6, 22.6, 32.6, 42.6]
    assert scene.api.told[0] == "patch u-1 Pending"
    assert set(scene.api.told[2:]) == {"patch u-1 Running"}


@in_virtual_time
async def test_the_api_servers_own_wish_when_to_come_again_is_followed() -> None:
    scene = Scene(Api({"patch": [Retryable("busy", after=7)]}))

    async def work() -> None:
        scene.publish(PENDING)
        await asyncio.sleep(20)

    await beside(scene.publisher.run(), work)
    assert [when for when, _, _ in scene.api.calls] == [0, 7]


@in_virtual_time
async def test_pods_do_not_wait_for_each_other() -> None:
    scene = Scene(Api(slow_s=1))

    async def work() -> None:
        scene.publish(PENDING, uid="u-1")
        scene.publish(PENDING, uid="u-2")
        await asyncio.sleep(3)

    await beside(scene.publisher.run(), work)
    assert scene.api.calls == [(0, "patch", "u-1 Pending"), (0, "patch", "u-2 Pending")]


@in_virtual_time
async def test_an_ended_pod_gets_its_last_status_and_one_final_delete() -> None:
    scene = Scene()

    async def work() -> None:
        scene.publish(RUNNING)
        await asyncio.sleep(1)
        scene.publish(FAILED, gone=True)
        await asyncio.sleep(60)

    await beside(scene.publisher.run(), work)
    assert scene.api.told == ["patch u-1 Running", "patch u-1 Failed", "delete u-1"]
    assert scene.finalized == ["u-1"]


@in_virtual_time
@pytest.mark.parametrize(("errors", "gone"), [([], []), ([NotFound("gone")], ["u-1"])])
async def test_a_pod_that_a_finalizer_holds_is_not_finalized_by_its_delete(
    errors: list[EdgeletError], gone: list[str]
) -> None:
    scene = Scene(Api({"delete": errors}))

    async def work() -> None:
        held = record(terminating=True, finalizers=("shop/audit",))
        scene.publisher.publish(PodUpdate(held, FAILED, gone=True, settle_s=0))
        await asyncio.sleep(60)

    await beside(scene.publisher.run(), work)
    assert scene.api.told == ["patch u-1 Failed", "delete u-1"]
    assert scene.finalized == gone


@in_virtual_time
async def test_a_delete_that_did_not_arrive_is_tried_again_without_the_patch() -> None:
    scene = Scene(Api({"delete": [Retryable("away"), Permanent("Invalid", "no"), Forbidden("Forbidden", "no")]}))

    async def work() -> None:
        scene.publish(FAILED, gone=True)
        await asyncio.sleep(5)
        assert scene.finalized == []
        await asyncio.sleep(60)

    await beside(scene.publisher.run(), work)
    assert scene.api.told == ["patch u-1 Failed", *["delete u-1"] * 4]
    assert scene.finalized == ["u-1"]


@in_virtual_time
async def test_a_refused_status_does_not_keep_an_ended_pod() -> None:
    scene = Scene(Api({"patch": [Permanent("Invalid", "no")]}))

    async def work() -> None:
        scene.publish(FAILED, gone=True)
        await asyncio.sleep(60)

    await beside(scene.publisher.run(), work)
    assert scene.api.told == ["patch u-1 Failed", "delete u-1"]
    assert scene.finalized == ["u-1"]


@in_virtual_time
async def test_a_refused_status_is_not_repeated_and_the_next_one_is_told() -> None:
    scene = Scene(Api({"patch": [Permanent("Invalid", "no")]}))

    async def work() -> None:
        scene.publish(PENDING)
        await asyncio.sleep(60)
        scene.publish(RUNNING)
        await asyncio.sleep(60)

    await beside(scene.publisher.run(), work)
    assert scene.api.told == ["patch u-1 Pending", "patch u-1 Running"]


@in_virtual_time
async def test_a_credential_that_is_not_accepted_may_be_accepted_later() -> None:
    scene = Scene(Api({"patch": [Forbidden("Forbidden", "no")]}))

    async def work() -> None:
        scene.publish(PENDING)
        await asyncio.sleep(60)

    await beside(scene.publisher.run(), work)
    assert [when for when, _, _ in scene.api.calls] == [0, 10]


@in_virtual_time
async def test_nobody_reads_the_status_of_a_pod_that_is_gone_or_was_made_again() -> None:
    for error in (NotFound("gone"), Conflict("another uid")):
        scene = Scene(Api({"patch": [error]}))

        async def work(scene: Scene = scene) -> None:
            scene.publish(PENDING)
            await asyncio.sleep(60)
            assert scene.finalized == []

        await beside(scene.publisher.run(), work)
        assert scene.api.told == ["patch u-1 Pending"]


@in_virtual_time
async def test_an_ended_pod_that_is_gone_already_is_finalized_all_the_same() -> None:
    for kind in ("patch", "delete"):
        for error in (NotFound("gone"), Conflict("another uid")):
            scene = Scene(Api({kind: [error]}))

            async def work(scene: Scene = scene) -> None:
                scene.publish(FAILED, gone=True)
                await asyncio.sleep(60)

            await beside(scene.publisher.run(), work)
            assert scene.finalized == ["u-1"]


@in_virtual_time
async def test_an_end_that_nobody_asked_for_deletes_nothing() -> None:
    scene = Scene()

    async def work() -> None:
        scene.publisher.publish(PodUpdate(record(), FAILED, gone=True))
        await asyncio.sleep(60)

    await beside(scene.publisher.run(), work)
    assert scene.api.told == ["patch u-1 Failed"]
    assert scene.finalized == []


@in_virtual_time
async def test_a_forgotten_pod_is_not_tried_again_and_may_come_back() -> None:
    scene = Scene(Api({"patch": [Retryable("away")]}, slow_s=1))

    async def work() -> None:
        scene.publish(PENDING)
        await asyncio.sleep(0.5)
        scene.publisher.forget("u-1")
        await asyncio.sleep(60)
        assert scene.api.told == ["patch u-1 Pending"]
        scene.publish(RUNNING)
        await asyncio.sleep(0.5)
        scene.publisher.forget("u-1")
        scene.publish(FAILED)
        await asyncio.sleep(60)

    await beside(scene.publisher.run(), work)
    assert scene.api.told == ["patch u-1 Pending", "patch u-1 Running", "patch u-1 Failed"]


def test_the_patch_names_the_uid_and_leaves_nothing_old_behind() -> None:
    status = PodStatus(
        phase=Phase.RUNNING,
        conditions=(PodCondition(type="Ready", status="True"),),
        podIPs=(IP(ip="10.0.0.5"),),
        hostIPs=(IP(ip="192.0.2.1"),),
        containerStatuses=(ContainerStatus(name="main", state=State(terminated=Terminated())),),
    )
    assert msgspec.json.decode(status_patch("u-1", status)) == {
        "metadata": {"uid": "u-1"},
        "status": {
            "phase": "Running",
            "reason": None,
            "message": None,
            "conditions": [{"type": "Ready", "status": "True", "reason": None, "message": None}],
            "podIPs": [{"$patch": "replace"}, {"ip": "10.0.0.5"}],
            "hostIPs": [{"$patch": "replace"}, {"ip": "192.0.2.1"}],
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
        },
    }
    told = msgspec.json.decode(status_patch("u-1", PodStatus(phase=Phase.FAILED, reason="Evicted", message="why")))
    assert told["status"] == {"phase": "Failed", "reason": "Evicted", "message": "why"}


def test_a_condition_that_is_over_is_taken_away() -> None:
    status = PodStatus(phase=Phase.RUNNING, conditions=(PodCondition(type="Ready", status="True"),))
    body = msgspec.json.decode(status_patch("u", status, {"PodResizePending"}))
    assert body["status"]["conditions"][-1] == {"$patch": "delete", "type": "PodResizePending"}
