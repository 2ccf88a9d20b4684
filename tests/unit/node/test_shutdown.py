"""Who ends when, and in how much time, when the machine goes down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from agent.config import Settings
from agent.model.pod import Pod, pod_from_dict
from agent.node.shutdown import Period, Shutdown, groups, periods, two_periods
from tests.fakes.clock import FakeClock, settle

CRITICAL = 2_000_000_000


def pod(name: str, priority: int | None = None, grace_s: int = 30, *, static: bool = False) -> Pod:
    made = pod_from_dict(
        {
            "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"priority": priority, "terminationGracePeriodSeconds": grace_s},
        }
    )
    annotations = {"kubernetes.io/config.source": "file"} if static else {}
    return msgspec.structs.replace(made, metadata=msgspec.structs.replace(made.metadata, annotations=annotations))


class Pods:
    """End when a test says so."""

    def __init__(self, *pods: Pod) -> None:
        self.pods = {one.uid: one for one in pods}
        self.told: list[tuple[str, int, bool]] = []
        self.ended: set[str] = set()
        self.is_open = True

    def active(self) -> tuple[Pod, ...]:
        return tuple(one for uid, one in self.pods.items() if uid not in self.ended)

    def end(self, uid: str, grace_s: int, *, final: bool) -> None:
        self.told.append((uid, grace_s, final))

    def has_ended(self, uid: str) -> bool:
        return uid in self.ended

    def close(self) -> None:
        self.is_open = False

    def open(self) -> None:
        self.is_open = True


class World:
    def __init__(self, *pods: Pod) -> None:
        self.clock = FakeClock()
        self.pods = Pods(*pods)
        self.reachable = True
        self.untold = 0
        self.changes = 0
        self.lines: list[str] = []
        self.shutdown = Shutdown(
            self.pods,
            self.clock,
            reachable=lambda: self.reachable,
            changed=self._changed,
            untold=lambda: self.untold,
        )

    def _changed(self) -> None:
        self.changes += 1

    @asynccontextmanager
    async def begun(self, *by: Period) -> AsyncIterator[asyncio.Task[bool]]:
        life = asyncio.ensure_future(self.shutdown.begin(by, self.lines.append))
        await settle()
        yield life
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


def test_the_two_settings_are_two_priorities() -> None:
    assert two_periods(0, 0) == ()
    assert two_periods(30, 10) == (Period(0, 20), Period(CRITICAL, 10))
    assert periods(Settings("n")) == ()
    assert periods(Settings("n", shutdown_grace_period=30)) == (Period(0, 30), Period(CRITICAL, 0))
    own = Settings("n", shutdown_grace_period_by_pod_priority=((0, 5), (100, 7)))
    assert periods(own) == (Period(0, 5), Period(100, 7))


@pytest.mark.parametrize(
    ("priority", "group"),
    [(-5, 10), (None, 10), (9, 10), (10, 10), (11, 10), (99, 10), (100, 100), (1000, 1000), (CRITICAL, 1000)],
)
def test_a_pod_goes_with_the_greatest_priority_that_is_not_above_its_own(priority: int | None, group: int) -> None:
    by = (Period(10, 1), Period(100, 1), Period(1000, 1))
    (found,) = groups([pod("a", priority)], by)
    assert found.period.priority == group


async def test_pods_end_by_priority_each_group_after_the_one_before() -> None:
    world = World(pod("web"), pod("short", grace_s=3), pod("dns", CRITICAL), pod("tool", CRITICAL - 1))
    async with world.begun(Period(0, 20), Period(CRITICAL, 10)) as life:
        assert world.pods.told == [("web", 20, True), ("short", 3, True), ("tool", 20, True)]
        assert (world.shutdown.message, world.pods.is_open) == ("node is shutting down", False)
        assert world.changes == 1
        world.pods.ended |= {"web", "short", "tool"}
        await world.clock.advance(0.2)
        assert world.pods.told[3:] == [("dns", 10, True)]
        world.pods.ended.add("dns")
        await world.clock.advance(0.2)
        assert await life is True
    assert world.lines == [
        "ending 3 pods of priority 0 and above, within 20 s",
        "shop/web has ended",
        "shop/short has ended",
        "shop/tool has ended",
        f"ending 1 pod of priority {CRITICAL} and above, within 10 s",
        "shop/dns has ended",
        "all pods have ended",
    ]
    assert world.shutdown.message


async def test_a_group_is_waited_for_no_longer_than_its_time() -> None:
    world = World(pod("web"), pod("dns", CRITICAL))
    async with world.begun(Period(0, 20), Period(CRITICAL, 10)) as life:
        await world.clock.advance(19.5)
        assert len(world.pods.told) == 1
        await world.clock.advance(0.6)
        assert world.pods.told[1:] == [("dns", 10, True)]
        await world.clock.advance(11)
        assert await life is False
    assert world.lines[-1] == "not all pods have ended in their time"


async def test_what_nobody_else_can_run_is_only_paused() -> None:
    world = World(pod("web"), pod("edge", static=True))
    world.reachable = False
    async with world.begun(Period(0, 20)):
        assert [(uid, final) for uid, _, final in world.pods.told] == [("web", False), ("edge", False)]
    world = World(pod("web"), pod("edge", static=True))
    async with world.begun(Period(0, 20)):
        assert [(uid, final) for uid, _, final in world.pods.told] == [("web", True), ("edge", False)]


async def test_the_last_statuses_are_waited_for_where_somebody_listens_and_not_for_long() -> None:
    world = World()
    world.untold = 1
    async with world.begun(Period(0, 20)) as life:
        await world.clock.advance(1)
        assert not life.done()
        world.untold = 0
        await world.clock.advance(0.2)
        assert await life is True
    world.untold = 1
    async with world.begun(Period(0, 20)) as life:
        await world.clock.advance(4)
        assert life.done()
    world.reachable = False
    async with world.begun(Period(0, 20)) as life:
        assert life.done()


async def test_a_shutdown_that_is_called_off_opens_the_node_again() -> None:
    world = World(pod("web"), pod("dns", CRITICAL))
    async with world.begun(Period(0, 20), Period(CRITICAL, 10)) as life:
        world.shutdown.call_off()
        await world.clock.advance(0.2)
        assert await life is False
    assert (world.shutdown.message, world.pods.is_open, world.changes) == ("", True, 2)
    assert [uid for uid, _, _ in world.pods.told] == ["web"]
    world.shutdown.call_off()
    assert world.changes == 2


async def test_a_provider_that_keeps_its_pods_is_not_asked() -> None:
    shutdown = Shutdown(None, FakeClock(), reachable=lambda: True, changed=lambda: None, untold=lambda: 0)
    lines: list[str] = []
    assert await shutdown.begin((Period(0, 1),), lines.append) is False
    assert lines == [
        "the provider does not let the agent end its pods: the Node says that it is shutting down, no more"
    ]
