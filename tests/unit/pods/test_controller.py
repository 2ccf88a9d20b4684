"""Desired changes to provider calls, retried; provider news to the publisher."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from agent.errors import EdgeletError, NotFound, Permanent, Retryable
from agent.model.objects import ObjectReference
from agent.model.record import PodRecord
from agent.model.status import Phase, PodStatus
from agent.pods.controller import PodController
from agent.pods.desired import DesiredChange
from agent.pods.publish import PodUpdateLike
from agent.providers.contract import PodUpdate
from tests.fakes.virtual_time import beside, elapsed, in_virtual_time

CREATED = ("Normal", "ProviderCreateSuccess", "Create pod in provider successfully")
UPDATED = ("Normal", "ProviderUpdateSuccess", "Update pod in provider successfully")
RUNNING, FAILED = PodStatus(phase=Phase.RUNNING), PodStatus(phase=Phase.FAILED)


def record(uid: str = "u-1", *, terminating: bool = False, phase: str = "", reason: str = "") -> PodRecord:
    meta: dict[str, Any] = {"name": "web", "namespace": "shop", "uid": uid}
    if terminating:
        meta["deletionTimestamp"] = "2024-01-01T00:00:00Z"
    status = {"phase": phase, "reason": reason}
    return PodRecord.decode(msgspec.json.encode({"metadata": meta, "spec": {}, "status": status}))


@dataclass
class World:
    """A provider and an event sink that remember; `errors` are raised one after the other, by call."""

    errors: dict[str, list[EdgeletError]] = field(default_factory=dict)
    calls: list[tuple[float, str, str]] = field(default_factory=list)
    events: list[tuple[str, str, str]] = field(default_factory=list)
    published: list[PodUpdateLike] = field(default_factory=list)
    slow_s: float = 0.0

    def __post_init__(self) -> None:
        self.controller = PodController(self, self, self.published.append)

    async def create_pod(self, record: PodRecord) -> None:
        await self._call("create", record)

    async def update_pod(self, record: PodRecord) -> None:
        await self._call("update", record)

    async def delete_pod(self, record: PodRecord) -> None:
        await self._call("delete", record)

    async def _call(self, kind: str, record: PodRecord) -> None:
        self.calls.append((elapsed(), kind, record.uid))
        await asyncio.sleep(self.slow_s)
        if errors := self.errors.get(kind):
            raise errors.pop(0)

    def record(
        self, about: ObjectReference, kind: str, reason: str, message: str, annotations: Mapping[str, str] | None = None
    ) -> None:
        assert (about.name, about.uid[:2]) == ("web", "u-")
        self.events.append((kind, reason, message))

    @property
    def called(self) -> list[str]:
        return [kind for _, kind, _ in self.calls]

    async def want(self, desired: PodRecord | None, was: PodRecord | None = None, wait_s: float = 1) -> None:
        self.controller.desired_changed(DesiredChange(desired, was))
        await asyncio.sleep(wait_s)

    def news(self, status: PodStatus = RUNNING, *, gone: bool = False) -> None:
        self.controller.pod_updated(PodUpdate(record(terminating=gone), status, gone=gone))


@in_virtual_time
async def test_a_pod_is_created_updated_and_deleted() -> None:
    world = World()

    async def work() -> None:
        await world.want(record())
        await world.want(record())
        await world.want(record(terminating=True))
        await world.want(record(terminating=True))

    await beside(world.controller.run(), work)
    assert world.called == ["create", "update", "delete", "delete"]


@in_virtual_time
async def test_a_pod_that_terminates_when_it_is_first_seen_is_only_deleted() -> None:
    world = World()

    async def work() -> None:
        await world.want(record(terminating=True))

    await beside(world.controller.run(), work)
    assert world.called == ["delete"]


@in_virtual_time
async def test_a_failed_create_is_created_again_with_growing_waits_and_an_event() -> None:
    world = World({"create": [Retryable("away"), Permanent("No", "no"), NotFound("what"), *[Retryable("x")] * 5]})

    async def work() -> None:
        await world.want(record(), wait_s=300)

    await beside(world.controller.run(), work)
    assert set(world.called) == {"create"}
    assert [when for when, _, _ in world.calls] == [0, 1, 3, 7, 15, 31, 63, 123, 183]
    assert world.events[:2] == [
        ("Warning", "ProviderCreateFailed", "away"),
        ("Warning", "ProviderCreateFailed", "no"),
    ]


@in_virtual_time
async def test_the_end_of_a_pod_that_cannot_be_created_does_not_wait_for_the_next_try() -> None:
    world = World({"create": [Retryable("away")] * 9})

    async def work() -> None:
        await world.want(record(), wait_s=20)
        await world.want(record(terminating=True), wait_s=100)

    await beside(world.controller.run(), work)
    assert world.calls[-1] == (20, "delete", "u-1")
    assert world.called.count("delete") == 1


@in_virtual_time
async def test_a_failed_delete_is_told_as_one_and_tried_again() -> None:
    world = World({"delete": [Retryable("away")]})

    async def work() -> None:
        await world.want(record())
        await world.want(record(terminating=True), wait_s=10)

    await beside(world.controller.run(), work)
    assert world.called == ["create", "delete", "delete"]
    assert world.events == [CREATED, ("Warning", "ProviderDeleteFailed", "away")]


@in_virtual_time
async def test_the_end_of_a_pod_whose_creates_failed_long_is_tried_again_soon() -> None:
    world = World({"create": [Retryable("away")] * 9, "delete": [Retryable("away")] * 3})

    async def work() -> None:
        await world.want(record(), wait_s=130)
        await world.want(record(terminating=True), wait_s=10)

    await beside(world.controller.run(), work)
    assert [at for at, kind, _ in world.calls if kind == "delete"] == [130, 131, 133, 137]


@in_virtual_time
async def test_the_newest_order_of_a_pod_wins_and_pods_do_not_wait_for_each_other() -> None:
    world = World(slow_s=5)

    async def work() -> None:
        await world.want(record(), wait_s=0)
        await world.want(record("u-2"), wait_s=1)
        await world.want(record(), wait_s=1)
        await world.want(record(terminating=True), wait_s=20)

    await beside(world.controller.run(), work)
    assert world.calls == [(0, "create", "u-1"), (0, "create", "u-2"), (5, "delete", "u-1")]


@in_virtual_time
async def test_the_providers_news_is_published() -> None:
    world = World()

    async def work() -> None:
        await world.want(record())
        world.news()

    await beside(world.controller.run(), work)
    assert [u.status for u in world.published] == [RUNNING]


@in_virtual_time
async def test_a_pod_that_is_desired_no_more_is_deleted_and_its_end_is_not_published() -> None:
    world = World()

    async def work() -> None:
        await world.want(record())
        await world.want(None, was=record())
        world.news(FAILED)
        world.news(FAILED, gone=True)
        # The same manifest comes back.
        await world.want(record())
        world.news()

    await beside(world.controller.run(), work)
    assert world.called == ["create", "delete", "create"]
    assert [u.status for u in world.published] == [RUNNING]


@in_virtual_time
async def test_a_manifest_put_back_while_its_pod_ends_is_created_again_and_followed() -> None:
    world = World()

    async def work() -> None:
        await world.want(record())
        await world.want(None, was=record())
        world.slow_s = 5
        await world.want(record(), wait_s=1)
        # The provider waits for the end of the old one, and tells it.
        world.controller.pod_updated(PodUpdate(record(), FAILED, gone=True))
        await asyncio.sleep(10)
        await world.want(record(), wait_s=10)
        await world.want(None, was=record(), wait_s=10)

    await beside(world.controller.run(), work)
    assert world.called == ["create", "delete", "create", "update", "delete"]


@in_virtual_time
async def test_a_pod_that_was_never_given_to_the_provider_needs_no_end() -> None:
    world = World()

    async def work() -> None:
        await world.want(None, was=record())

    await beside(world.controller.run(), work)
    assert world.calls == []


@in_virtual_time
async def test_a_pod_whose_create_failed_is_deleted_for_something_of_it_may_be_there() -> None:
    world = World({"create": [Retryable("away")] * 9})

    async def work() -> None:
        await world.want(record(), wait_s=10)
        await world.want(None, was=record(), wait_s=10)

    await beside(world.controller.run(), work)
    assert world.called[-1] == "delete"


@in_virtual_time
async def test_echoes_of_an_end_do_not_bring_the_pod_back() -> None:
    world = World()

    async def work() -> None:
        await world.want(record())
        await world.want(record(terminating=True))
        world.news(FAILED, gone=True)
        await world.want(record(terminating=True))
        await world.want(None, was=record(terminating=True))

    await beside(world.controller.run(), work)
    assert world.called == ["create", "delete"]
    assert [u.gone for u in world.published] == [True]


@in_virtual_time
async def test_a_pod_that_the_provider_lost_is_created_again() -> None:
    world = World({"update": [NotFound("lost")]})

    async def work() -> None:
        await world.want(record())
        await world.want(record())
        await world.want(record())

    await beside(world.controller.run(), work)
    assert world.called == ["create", "update", "create", "update"]
    assert world.events == [CREATED]


@pytest.mark.parametrize(
    ("phase", "reason", "said", "why"),
    [("Running", "", Phase.FAILED, "NotFound"), ("Failed", "Evicted", Phase.FAILED, "Evicted")],
)
def test_the_end_of_a_lost_pod_is_told(phase: str, reason: str, said: Phase, why: str) -> None:
    world = World({"delete": [NotFound("lost")]})

    @in_virtual_time
    async def run() -> None:
        async def work() -> None:
            await world.want(record(terminating=True, phase=phase, reason=reason))

        await beside(world.controller.run(), work)

    run()
    (update,) = world.published
    assert (update.gone, update.status.phase, update.status.reason, update.settle_s) == (True, said, why, 0)


@in_virtual_time
async def test_a_lost_pod_that_nobody_desires_just_goes() -> None:
    world = World({"delete": [NotFound("lost")]})

    async def work() -> None:
        await world.want(record())
        await world.want(None, was=record())
        await world.want(record())

    await beside(world.controller.run(), work)
    assert world.called == ["create", "delete", "create"]
    assert world.published == []


def labelled(colour: str) -> PodRecord:
    made = record()
    labels = {"colour": colour}
    pod = msgspec.structs.replace(made.pod, metadata=msgspec.structs.replace(made.pod.metadata, labels=labels))
    return PodRecord(pod, made.raw)


@in_virtual_time
async def test_success_is_told_once_a_pod_and_a_status_that_comes_back_is_no_update() -> None:
    world = World()

    async def work() -> None:
        await world.want(record())
        await world.want(record())
        await world.want(record(phase="Running"))
        assert world.events == [CREATED]
        await world.want(labelled("red"))
        await world.want(labelled("blue"))

    await beside(world.controller.run(), work)
    assert world.called == ["create", "update", "update", "update", "update"]
    assert world.events == [CREATED, UPDATED]


@in_virtual_time
async def test_of_a_provider_that_is_given_statuses_a_status_that_comes_back_is_an_update() -> None:
    world = World()
    world.controller = PodController(world, world, world.published.append, status_is_update=True)

    async def work() -> None:
        await world.want(record())
        await world.want(record())
        assert world.events == [CREATED]
        await world.want(record(phase="Running"))
        assert world.events == [CREATED, UPDATED]
        await world.want(labelled("red"))

    await beside(world.controller.run(), work)
    assert world.events == [CREATED, UPDATED]


@in_virtual_time
async def test_of_a_provider_with_events_of_its_own_only_failures_are_told() -> None:
    world = World(errors={"create": [Retryable("away")]})
    world.controller = PodController(world, world, world.published.append, says_success=False)

    async def work() -> None:
        await world.want(record(), wait_s=3)
        await world.want(labelled("red"))

    await beside(world.controller.run(), work)
    assert world.called == ["create", "create", "update"]
    assert world.events == [("Warning", "ProviderCreateFailed", "away")]


@in_virtual_time
async def test_a_pod_from_before_a_restart_is_not_said_to_be_created_again() -> None:
    world = World()

    async def work() -> None:
        world.controller.desired_changed(DesiredChange(record(), None, recalled=True))
        await asyncio.sleep(1)
        await world.want(record(phase="Running"))

    await beside(world.controller.run(), work)
    assert world.called == ["create", "update"]
    assert world.events == []


@in_virtual_time
async def test_a_pod_that_cannot_be_created_says_so_in_its_status_and_each_reason_is_one_event() -> None:
    world = World({"create": [Retryable("away")] * 3 + [Permanent("No", "full")]})

    async def work() -> None:
        await world.want(record(), wait_s=60)

    await beside(world.controller.run(), work)
    failed = [("Warning", "ProviderCreateFailed", why) for why in ("away", "full")]
    assert world.events == [*failed, CREATED]
    said = {(u.status.phase, u.status.reason, u.status.message, u.gone) for u in world.published}
    assert said == {(Phase.PENDING, "ProviderFailed", why, False) for why in ("away", "full")}


@pytest.mark.parametrize("recalled", [True, False])
def test_a_pod_that_may_run_is_not_said_to_be_pending_while_its_provider_is_away(recalled: bool) -> None:
    @in_virtual_time
    async def run() -> None:
        world = World({"create": [Retryable("away")] * 3})
        known = record(phase="" if recalled else "Running")

        async def work() -> None:
            world.controller.desired_changed(DesiredChange(known, None, recalled=recalled))
            await asyncio.sleep(60)

        await beside(world.controller.run(), work)
        assert world.called == ["create"] * 4
        assert world.published == []

    run()


@in_virtual_time
async def test_a_failed_update_is_told_as_one_tried_again_and_leaves_the_status_alone() -> None:
    world = World({"update": [Retryable("away")] * 2})

    async def work() -> None:
        await world.want(record())
        await world.want(labelled("red"), wait_s=10)

    await beside(world.controller.run(), work)
    assert world.called == ["create", "update", "update", "update"]
    assert world.events == [CREATED, ("Warning", "ProviderUpdateFailed", "away"), UPDATED]
    assert world.published == []


@in_virtual_time
async def test_what_a_pod_waits_for_being_there_ends_the_wait_for_the_next_try() -> None:
    world = World({"create": [Retryable("no secret")] * 6})

    async def work() -> None:
        await world.want(record(), wait_s=40)
        world.controller.retry("u-1")
        world.controller.retry("unknown")
        await asyncio.sleep(1)

    await beside(world.controller.run(), work)
    assert [when for when, _, _ in world.calls] == [0, 1, 3, 7, 15, 31, 40]
