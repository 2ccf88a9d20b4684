"""What was decided of a pod stands, over restarts too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.errors import Retryable
from agent.model.devices import NO_OPTIONS, Device, DeviceSettings
from agent.model.node import NodeFacts
from agent.model.pod import Pod
from agent.pods.admission.gate import Gate, Verdict
from agent.pods.devices.devices import Devices
from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore
from tests.fakes.waiting import PATIENCE_S
from tests.unit.pods.pods import make_pod

WIDGET = "example.com/widget"
ROOM = {"cpu": "1", "memory": "1Gi", "pods": "10"}


@dataclass
class Node:
    """A Node whose labels can be changed behind the watch's back."""

    seen: NodeFacts = field(default_factory=lambda: NodeFacts("node-1", allocatable=ROOM))
    real: NodeFacts | None = None
    asked: int = 0

    def facts(self) -> NodeFacts:
        return self.seen

    async def current(self) -> NodeFacts:
        return self.seen

    async def ask(self) -> NodeFacts:
        self.asked += 1
        self.seen = self.real or self.seen
        return self.seen


@dataclass
class Lab:
    store: MemoryStore = field(default_factory=MemoryStore)
    node: Node = field(default_factory=Node)
    told_to_go: list[str] = field(default_factory=list)

    def _preempt(self, uid: str, verdict: Verdict) -> None:
        assert verdict.preempted
        self.told_to_go.append(uid)

    @asynccontextmanager
    async def agent(self, running: tuple[str, ...] = (), ended: tuple[str, ...] = ()) -> AsyncIterator[Gate]:
        """An agent's life; its last writes are lost, as by SIGKILL."""
        gate = Gate(self.store, self.node, self._preempt)
        await gate.load(running, ended)
        life = asyncio.create_task(gate.run())
        try:
            yield gate
        finally:
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)

    async def written(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.store.writes) < count:  # noqa: ASYNC110  the writer is another task
                await asyncio.sleep(0)


def pod(uid: str, cpu: str = "0", **spec: Any) -> Pod:
    main = {"name": "main", "image": "i", "resources": {"requests": {"cpu": cpu}}}
    return make_pod({"uid": uid, "name": uid}, containers=[main], **spec)


async def reason(gate: Gate, wanted: Pod, *, runs: bool = False) -> str:
    verdict = await gate.admit(wanted, runs=runs)
    return verdict.reason if verdict else ""


async def test_the_pods_that_came_first_have_the_room() -> None:
    async with Lab().agent() as gate:
        assert await reason(gate, pod("a", "600m")) == ""
        assert await reason(gate, pod("b", "600m")) == "OutOfcpu"
        assert await reason(gate, pod("c", "400m")) == ""


async def test_who_was_deleted_by_force_has_no_room_any_more_though_it_still_ends() -> None:
    async with Lab().agent() as gate:
        assert await reason(gate, pod("a", "600m")) == ""
        gate.leaves("a")
        assert await reason(gate, pod("b", "600m")) == ""
        gate.left("a")
        assert await reason(gate, pod("c", "600m")) == "OutOfcpu"


async def test_a_resize_that_only_what_others_use_stands_against_waits() -> None:
    less = NodeFacts("node-1", allocatable={**ROOM, "cpu": "500m"}, usual=ROOM)
    async with Lab(node=Node(less)).agent() as gate:
        assert await reason(gate, pod("a", "400m")) == ""
        assert (gate.resize(pod("a", "800m")) or ("",))[0] == "Deferred"
        assert (gate.resize(pod("a", "1200m")) or ("",))[0] == "Infeasible"
        assert await reason(gate, pod("b", "600m")) == "OutOfcpu"


async def test_resizes_that_wait_get_room_by_rank_and_not_by_who_asks_first() -> None:
    async with Lab().agent() as gate:
        sizes = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}}
        guaranteed = make_pod({"uid": "safe", "name": "safe"}, containers=[{"name": "c", "resources": sizes}])
        first = {"big": pod("big", "600m"), "late": pod("late", "100m"), "dear": pod("dear", "100m", priority=9)}
        for one in (*first.values(), guaranteed):
            assert await reason(gate, one) == ""
        more = {"requests": {"cpu": "600m", "memory": "64Mi"}, "limits": {"cpu": "600m", "memory": "64Mi"}}
        wanted = {
            "late": pod("late", "600m"),
            "safe": make_pod({"uid": "safe", "name": "safe"}, containers=[{"name": "c", "resources": more}]),
            "dear": pod("dear", "600m", priority=9),
        }

        def got() -> set[str]:
            return {uid for uid, one in wanted.items() if gate.resize(one) is None}

        assert got() == set()
        gate.left("big")
        assert got() == {"dear"}
        gate.left("dear")
        del wanted["dear"]
        assert got() == {"safe"}
        gate.forget("safe")
        del wanted["safe"]
        assert got() == {"late"}


async def test_room_that_one_ahead_will_give_back_is_not_given_away_before() -> None:
    """Each makes room for the next: who asked before its turn had it, and stood in the way of all ahead of it."""

    def sized(uid: str, cpu: str, memory: str) -> Pod:
        requests = {"cpu": cpu, "memory": memory}
        return make_pod({"uid": uid, "name": uid}, containers=[{"name": "c", "resources": {"requests": requests}}])

    async with Lab().agent() as gate:
        for uid in ("1", "2", "3", "4"):
            assert await reason(gate, sized(uid, "250m", "200Mi")) == ""
        second, third, fourth = sized("2", "333m", "40Mi"), sized("3", "41m", "680Mi"), sized("4", "625m", "200Mi")
        assert [bool(gate.resize(one)) for one in (second, third, fourth)] == [True] * 3
        gate.left("1")
        assert gate.resize(fourth) is not None
        assert gate.resize(third) is not None
        assert gate.resize(second) is None
        assert gate.resize(fourth) is not None
        assert gate.resize(third) is None
        assert gate.resize(fourth) is None


async def test_a_resize_that_is_called_off_holds_nobody_up() -> None:
    async with Lab().agent() as gate:
        for one in (pod("big", "600m"), pod("dear", "100m", priority=9), pod("late", "100m")):
            assert await reason(gate, one) == ""
        assert gate.resize(pod("dear", "500m", priority=9)) is not None
        gate.left("big")
        assert gate.resize(pod("late", "600m")) is not None
        gate.keep_size("dear")
        assert gate.resize(pod("late", "600m")) is None


async def test_a_rejection_is_final_and_durable_before_it_is_told() -> None:
    lab = Lab()
    async with lab.agent() as gate:
        verdict = await gate.admit(pod("b", "2"), runs=False)
        assert verdict is not None
        assert "requested: 2000, used: 0, capacity: 1000" in verdict.message
    lab.node.seen = NodeFacts("node-1", allocatable={**ROOM, "cpu": "64"})
    async with lab.agent() as gate:
        assert await gate.admit(pod("b", "2"), runs=False) == verdict


async def test_a_record_that_cannot_be_written_rejects_nobody_yet() -> None:
    class Full(MemoryStore):
        async def batch(self, changes: Any) -> int:
            raise Retryable("disk full")

    lab = Lab(store=Full())
    async with lab.agent() as gate:
        with pytest.raises(Retryable, match="disk full"):
            await gate.admit(pod("b", "2"), runs=False)


async def test_who_was_taken_is_not_judged_again_after_a_restart() -> None:
    lab = Lab()
    async with lab.agent() as gate:
        assert await reason(gate, pod("a", "600m", nodeSelector={})) == ""
        await lab.written(1)
    lab.node.seen = NodeFacts("node-1", allocatable={**ROOM, "cpu": "100m"})
    async with lab.agent() as gate:
        assert await reason(gate, pod("a", "600m")) == ""
        assert await reason(gate, pod("b", "100m")) == "OutOfcpu"


async def test_what_was_taken_before_a_restart_counts_before_it_is_named() -> None:
    lab = Lab()
    async with lab.agent() as gate:
        await reason(gate, pod("a", "600m"))
        await lab.written(1)
    async with lab.agent() as gate:
        assert await reason(gate, pod("b", "600m")) == "OutOfcpu"


async def test_a_pod_that_the_runtime_has_was_taken_even_where_the_record_does_not_say() -> None:
    lab = Lab()
    async with lab.agent(running=("a",)) as gate:
        assert await reason(gate, pod("a", "3")) == ""
        assert await reason(gate, pod("b", "100m")) == "OutOfcpu"
    async with Lab().agent() as gate:
        assert await reason(gate, pod("a", "3"), runs=True) == ""


async def test_a_pod_that_ended_holds_nothing_and_one_that_went_is_forgotten() -> None:
    lab = Lab()
    async with lab.agent() as gate:
        await reason(gate, pod("a", "600m"))
        gate.left("a")
        assert await reason(gate, pod("b", "600m")) == ""
        gate.forget("b")
        assert await reason(gate, pod("c", "600m")) == ""
        await lab.written(3)
    async with lab.agent(ended=("a",)) as gate:
        assert await reason(gate, pod("d", "400m")) == ""
        assert sorted(one.uid for one in gate.unnamed({"d": None})) == ["a", "c"]


async def test_a_label_that_the_watch_has_not_shown_yet_is_asked_for() -> None:
    lab = Lab(node=Node(real=NodeFacts("node-1", labels={"disk": "ssd"}, allocatable=ROOM)))
    async with lab.agent() as gate:
        assert await reason(gate, pod("a", nodeSelector={"disk": "ssd"})) == ""
        assert await reason(gate, pod("b", nodeSelector={"disk": "hdd"})) == "NodeAffinity"
        assert lab.node.asked == 2


async def test_only_an_affinity_is_worth_a_question() -> None:
    lab = Lab()
    async with lab.agent() as gate:
        assert await reason(gate, pod("a", "2", nodeSelector={"disk": "ssd"})) == "OutOfcpu"
        assert await reason(gate, pod("b")) == ""
        assert lab.node.asked == 0


async def test_a_quantity_that_cannot_be_read_is_a_rejection() -> None:
    async with Lab().agent() as gate:
        assert await reason(gate, pod("a", "much")) == "UnexpectedAdmissionError"


CRITICAL = {"priority": 2_000_000_000}


async def test_a_critical_pod_has_others_go_and_waits_for_their_end() -> None:
    lab = Lab()
    async with lab.agent() as gate:
        await reason(gate, pod("a", "600m"))
        await reason(gate, pod("b", "300m"))
        admitting = asyncio.create_task(reason(gate, pod("c", "500m", **CRITICAL)))
        await lab.written(3)
        assert lab.told_to_go == ["a"]
        assert not admitting.done()
        assert await reason(gate, pod("d", "300m")) == "OutOfcpu"
        gate.left("a")
        assert await admitting == ""
        await lab.written(5)
    async with lab.agent(running=("a",)) as gate:
        # Who had to go stays gone, also where the agent was killed before its containers were.
        assert await reason(gate, pod("a", "600m")) == "Preempting"
        assert await reason(gate, pod("c", "500m")) == ""


async def test_a_critical_pod_that_no_end_of_others_helps_is_rejected() -> None:
    lab = Lab()
    async with lab.agent() as gate:
        await reason(gate, pod("a", "600m"))
        assert await reason(gate, pod("c", "2", **CRITICAL)) == "UnexpectedAdmissionError"
        assert await reason(gate, pod("d", "2", nodeSelector={"x": "y"}, **CRITICAL)) == "NodeAffinity"
        assert lab.told_to_go == []


async def test_under_pressure_only_what_is_new_is_turned_away() -> None:
    lab = Lab()
    async with lab.agent() as gate:
        assert await gate.admit(pod("before"), runs=False) is None
    gate = Gate(lab.store, lab.node, lab._preempt, lambda: ("MemoryPressure",))
    await gate.load(("found",), ())
    assert await reason(gate, pod("new")) == "Evicted"
    assert await reason(gate, pod("found")) == ""
    assert await reason(gate, pod("ran"), runs=True) == ""


async def test_an_eviction_stands_after_a_restart() -> None:
    lab = Lab()
    gone = Verdict("Evicted", "The node was low on resource: memory. ", evicted=True, grace_s=1, disruption="why")
    ended: list[Verdict] = []
    gate = Gate(lab.store, lab.node, lambda _, verdict: ended.append(verdict))
    life = asyncio.create_task(gate.run())
    assert await gate.admit(pod("eater"), runs=False) is None
    gate.evict("eater", gone)
    assert ended == [gone]
    await lab.written(1)
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
    async with lab.agent(running=("eater",)) as after:
        assert await after.admit(pod("eater"), runs=True) == gone


async def test_a_node_that_goes_down_rejects_new_pods_keeps_those_it_has_and_lets_manifests_wait() -> None:
    lab = Lab()
    closed = Verdict("NodeShutdown", "Pod was rejected as the node is shutting down.")
    async with lab.agent() as gate:
        assert await reason(gate, pod("a")) == ""
        gate.close(closed)
        assert await reason(gate, pod("a")) == ""
        assert await gate.admit(pod("b"), runs=False) == closed
        assert await gate.admit(pod("c"), runs=True) is None
        manifest = make_pod({"uid": "s", "name": "s", "annotations": {"kubernetes.io/config.source": "file"}})
        waiting = asyncio.ensure_future(gate.admit(manifest, runs=False))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        gate.open()
        assert await waiting is None
        assert await reason(gate, pod("b")) == "NodeShutdown"
        assert await reason(gate, pod("d")) == ""


# ---------------------------------------------------------------- devices of plugins


class Plugin:
    """It gives whatever it has."""

    async def prefer(self, available: tuple[str, ...], must_include: tuple[str, ...], size: int) -> tuple[str, ...]:
        return ()

    async def allocate(self, ids: tuple[str, ...]) -> DeviceSettings:
        return DeviceSettings()

    async def pre_start(self, ids: tuple[str, ...]) -> None:
        return


def widget_pod(uid: str, cpu: str = "0") -> Pod:
    asked = {"requests": {"cpu": cpu, WIDGET: 1}, "limits": {WIDGET: 1}}
    return make_pod({"uid": uid, "name": uid}, containers=[{"name": "main", "image": "i", "resources": asked}])


def devices(store: MemoryStore, *ids: str) -> Devices:
    made, plugin = Devices(store, FakeClock(), "boot-1", lambda: None), Plugin()
    made.connected(WIDGET, plugin, NO_OPTIONS)
    made.told(WIDGET, plugin, [Device(one) for one in ids])
    return made


async def test_who_finds_no_device_is_rejected_in_the_kubelet_s_words() -> None:
    lab = Lab()
    # What the API server's Node says of them is a moment old, and does not count.
    lab.node.seen = NodeFacts("node-1", allocatable={**ROOM, WIDGET: "5"})
    async with lab.agent() as gate:
        gate.devices = devices(lab.store, "a", "b")
        for uid in ("p", "q"):
            assert await reason(gate, widget_pod(uid)) == ""
        verdict = await gate.admit(widget_pod("r"), runs=False)
        assert verdict == Verdict(
            "UnexpectedAdmissionError",
            f"Allocate failed due to requested number of devices unavailable for {WIDGET}. Requested: 1, "
            "Available: 0, which is unexpected",
        )
        gate.left("p")
        assert await reason(gate, widget_pod("s")) == ""


async def test_a_node_s_count_that_lags_behind_rejects_nobody_who_has_a_device() -> None:
    lab = Lab()
    lab.node.seen = NodeFacts("node-1", allocatable={**ROOM, WIDGET: "0"})
    async with lab.agent() as gate:
        gate.devices = devices(lab.store, "a")
        assert await reason(gate, widget_pod("p")) == ""


async def test_a_pod_that_is_rejected_for_something_else_leaves_its_devices_to_others() -> None:
    lab = Lab()
    async with lab.agent() as gate:
        gate.devices = devices(lab.store, "a")
        assert await reason(gate, widget_pod("p", cpu="99")) == "OutOfcpu"
        assert await reason(gate, widget_pod("q")) == ""


async def test_devices_of_pods_that_are_still_here_are_theirs_after_a_restart() -> None:
    lab = Lab()
    async with lab.agent() as gate:
        gate.devices = devices(lab.store, "a", "b")
        for uid in ("p", "q"):
            assert await reason(gate, widget_pod(uid)) == ""
        await lab.written(4)
    after = devices(lab.store, "a", "b")
    gate = Gate(lab.store, lab.node, lab._preempt)
    gate.devices = after
    await gate.load(running=(), ended=("q",))
    assert after.grants("p") != ()
    assert after.grants("q") == ()
    assert await reason(gate, widget_pod("r")) == ""
    assert await reason(gate, widget_pod("s")) == "UnexpectedAdmissionError"
