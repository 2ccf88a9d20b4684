from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec

from agent.config import Settings
from agent.errors import Forbidden, Retryable
from agent.pods.policy_defaults import FORBIDDEN_S, HOLDER, KEY, PolicyDefaults
from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import eventually
from tests.unit.pods.pods import make_pod
from tests.unit.pods.scene import FakeEvents, FakeObjects

KEEP = "edgelet.io/keep-for"
ROW = "objects/configmaps/kube-system/edgelet-defaults"


def config_map(data: Mapping[str, str]) -> bytes:
    return msgspec.json.encode({"metadata": {"name": KEY.name, "namespace": KEY.namespace}, "data": data})


def keeps(duration: str) -> bytes:
    return config_map({"10": f"- annotations: {{{KEEP}: {duration}}}"})


class House:
    def __init__(self) -> None:
        self.labels = {"site": "harbour"}
        self.events, self.objects, self.clock = FakeEvents(), FakeObjects(), FakeClock()
        settings = Settings("node-1", policy_default={KEEP: "1m"})
        self.defaults = PolicyDefaults(settings, lambda: self.labels, self.events, self.clock)

    @property
    def keep_for(self) -> float | None:
        return self.defaults.policing.of(make_pod()).keep_for

    def put(self, raw: bytes) -> None:
        self.objects.held[KEY] = raw
        self.defaults.objects_changed(HOLDER)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.defaults.run(self.objects))
        yield
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()


async def test_the_record_is_read_before_anybody_is_asked() -> None:
    house, store = House(), MemoryStore()
    await house.defaults.load(store)
    assert house.keep_for == 60
    await store.put(ROW, keeps("7m"))
    await house.defaults.load(store)
    assert house.keep_for == 420
    assert house.objects.asked == 0


async def test_a_change_holds_at_once_and_a_removed_one_no_more() -> None:
    house = House()
    async with house.running():
        await eventually(lambda: house.objects.retained == {HOLDER: (KEY,)})
        house.put(keeps("7m"))
        await eventually(lambda: house.keep_for == 420)
        del house.objects.held[KEY]
        house.defaults.objects_changed(HOLDER)
        await eventually(lambda: house.keep_for == 60)


async def test_what_is_had_holds_while_nobody_answers() -> None:
    house = House()
    house.put(keeps("7m"))
    async with house.running():
        await eventually(lambda: house.keep_for == 420)
        house.objects.error = Retryable("no route to host")
        house.put(keeps("8m"))
        await eventually(lambda: house.clock.sleepers == 1)
        assert house.keep_for == 420
        house.objects.error = None
        await house.clock.advance(10)
        await eventually(lambda: house.keep_for == 480)


async def test_where_nodes_may_not_read_it_no_watch_is_begun_and_they_ask_seldom() -> None:
    house = House()
    house.put(keeps("7m"))
    house.objects.error = Forbidden("Forbidden", "configmaps is forbidden")
    async with house.running():
        await eventually(lambda: house.clock.sleepers == 1)
        assert (house.keep_for, house.objects.asked, house.objects.retained) == (60, 1, {})
        await house.clock.advance(FORBIDDEN_S)
        await eventually(lambda: house.objects.asked == 2)
        house.objects.error = None
        await house.clock.advance(2 * FORBIDDEN_S - 1)
        assert house.objects.asked == 2
        await house.clock.advance(1)
        await eventually(lambda: house.keep_for == 420)
        assert house.objects.retained == {HOLDER: (KEY,)}


async def test_a_rule_may_be_about_some_nodes() -> None:
    house, store = House(), MemoryStore()
    rule = f"- {{nodeSelector: {{matchLabels: {{site: yard}}}}, annotations: {{{KEEP}: 7m}}}}"
    await store.put(ROW, config_map({"10": rule}))
    await house.defaults.load(store)
    assert house.keep_for == 60
    house.labels = {"site": "yard"}
    house.defaults.node_changed()
    assert house.keep_for == 420


async def test_a_fault_is_said_once_on_the_node() -> None:
    house = House()
    async with house.running():
        house.put(config_map({"10": f"- annotations: {{{KEEP}: long}}", "20": f"- annotations: {{{KEEP}: 1h}}"}))
        await eventually(lambda: house.keep_for == 3600)
        house.put(config_map({"10": f"- annotations: {{{KEEP}: long}}", "20": f"- annotations: {{{KEEP}: 2h}}"}))
        await eventually(lambda: house.keep_for == 7200)
    assert house.events.messages("InvalidPolicy") == [
        "ConfigMap kube-system/edgelet-defaults: 10, rule 1: annotation edgelet.io/keep-for='long' does not count:"
        " 'long' is no duration: write 90s or 1m30s"
    ]
