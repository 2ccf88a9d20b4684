"""The agent looks after the pods of a provider that only runs them, told or asked, over restarts and losses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from agent.errors import NotFound, Permanent, Retryable
from agent.model.pod import PodCondition
from agent.model.record import PodRecord
from agent.model.status import ContainerStatus, Phase, PodStatus, Running, State, Terminated
from agent.pods.controller import PodController
from agent.pods.desired import DesiredChange
from agent.providers.contract import PodUpdate, PodUpdates
from agent.providers.follow import Follower
from tests.fakes.store import MemoryStore
from tests.fakes.virtual_time import beside, elapsed, in_virtual_time
from tests.unit.pods.scene import FakeEvents, FakeObjects

RUNS = State(running=Running(startedAt="2024-01-01T00:00:00Z"))
ENDED = State(terminated=Terminated(exitCode=3, reason="Error"))
READY = (PodCondition(type="Ready", status="True"),)


def status(phase: Phase, state: State = RUNS) -> PodStatus:
    main = ContainerStatus(name="main", state=state, ready=state is RUNS, containerID="zoo://1")
    return PodStatus(phase=phase, containerStatuses=(main,), conditions=READY)


RUNNING, FAILED = status(Phase.RUNNING), status(Phase.FAILED, ENDED)


def record(uid: str = "u-1", name: str = "web", *, phase: str = "", colour: str = "", **spec: Any) -> PodRecord:
    meta = {"name": name, "namespace": "shop", "uid": uid, "labels": {"colour": colour}}
    spec = {"containers": [{"name": "main", "image": "i"}], **spec}
    return PodRecord.decode(msgspec.json.encode({"metadata": meta, "spec": spec, "status": {"phase": phase}}))


class Zoo:
    """Knows pods by name alone, as many do. `broken` is raised by the calls that it names."""

    def __init__(self) -> None:
        self.pods: dict[str, PodRecord] = {}
        self.statuses: dict[str, PodStatus] = {}
        self.calls: list[str] = []
        self.broken: dict[str, Exception] = {}
        self.reads = 0

    def _call(self, kind: str, name: str) -> None:
        self.calls.append(f"{kind} {name}")
        if kind in self.broken:
            raise self.broken[kind]

    async def create_pod(self, record: PodRecord) -> None:
        self._call("create", record.uid)
        self.pods[record.pod.full_name] = record
        self.statuses[record.pod.full_name] = RUNNING

    async def update_pod(self, record: PodRecord) -> None:
        self._call("update", record.uid)
        if record.pod.full_name not in self.pods:
            raise NotFound("no such animal")
        self.pods[record.pod.full_name] = record

    async def delete_pod(self, record: PodRecord) -> None:
        self._call("delete", record.uid)
        if record.pod.full_name not in self.pods:
            raise NotFound("no such animal")

    async def get_pod(self, namespace: str, name: str) -> PodRecord:
        self.reads += 1
        if "get" in self.broken:
            raise self.broken["get"]
        if f"{namespace}/{name}" not in self.pods:
            raise NotFound("no such animal")
        return self.pods[f"{namespace}/{name}"]

    async def get_pod_status(self, namespace: str, name: str) -> PodStatus:
        return self.statuses[f"{namespace}/{name}"]

    async def get_pods(self) -> tuple[PodRecord, ...]:
        return tuple(self.pods.values())

    def lose(self, name: str = "shop/web") -> None:
        del self.pods[name]
        del self.statuses[name]


class TellingZoo(Zoo):
    updates: PodUpdates

    def notify_pods(self, updates: PodUpdates) -> None:
        self.updates = updates


class LoopClock:
    def monotonic(self) -> float:
        return elapsed()

    def wall(self) -> float:
        return elapsed()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class World:
    """One life of the agent; `again` is the next one on the same record and provider."""

    zoo: Zoo = field(default_factory=Zoo)
    store: MemoryStore = field(default_factory=MemoryStore)
    objects: FakeObjects = field(default_factory=FakeObjects)
    events: FakeEvents = field(default_factory=FakeEvents)
    updates: list[PodUpdate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.follower = Follower(self.zoo, self.store, self.objects, self.events, LoopClock(), resync_s=60)
        self.follower.notify_pods(self.updates.append)

    async def life(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await beside(self.follower.run(), work)

    def again(self) -> World:
        return World(self.zoo, self.store)

    @property
    def told(self) -> list[tuple[str, Phase, str, bool]]:
        return [(u.record.uid, u.status.phase, u.status.reason, u.gone) for u in self.updates]


RUNNING_TOLD = ("u-1", Phase.RUNNING, "", False)


@in_virtual_time
async def test_a_pods_status_is_asked_for_at_once_and_then_every_five_seconds_and_told_when_it_changed() -> None:
    world = World()

    async def work() -> None:
        await world.follower.create_pod(record())
        assert world.told == [RUNNING_TOLD]
        await asyncio.sleep(12)
        assert world.told == [RUNNING_TOLD]
        world.zoo.statuses["shop/web"] = FAILED
        await asyncio.sleep(5)
        assert world.told == [RUNNING_TOLD, ("u-1", Phase.FAILED, "", False)]
        before = world.zoo.reads
        await asyncio.sleep(60)
        assert world.zoo.reads == before, "what has ended is not asked for"

    await world.life(work)


@in_virtual_time
async def test_a_provider_that_tells_is_asked_only_at_the_full_resync() -> None:
    zoo = TellingZoo()
    world = World(zoo)

    async def work() -> None:
        await world.follower.create_pod(record())
        assert world.told == []
        zoo.updates(PodUpdate(record(), RUNNING))
        zoo.updates(PodUpdate(record("u-2", "other"), RUNNING))  # nobody asked for it
        assert world.told == [RUNNING_TOLD]
        before = world.zoo.reads
        await asyncio.sleep(59)
        assert world.zoo.reads == before
        zoo.statuses["shop/web"] = FAILED
        await asyncio.sleep(6)
        assert world.told[1:] == [("u-1", Phase.FAILED, "", False)]

    await world.life(work)


@in_virtual_time
async def test_a_provider_is_told_of_changes_that_concern_it() -> None:
    world = World()

    async def work() -> None:
        await world.follower.create_pod(record())
        await world.follower.update_pod(record(phase="Running"))
        assert world.zoo.calls == ["create u-1"]
        world.zoo.broken["update"] = Retryable("away")
        with pytest.raises(Retryable):
            await world.follower.update_pod(record(colour="red"))
        del world.zoo.broken["update"]
        await world.follower.update_pod(record(colour="red"))
        assert world.zoo.calls == ["create u-1", "update u-1", "update u-1"]

    await world.life(work)


@in_virtual_time
async def test_a_pod_that_is_deleted_is_gone_once_nothing_of_it_runs() -> None:
    world = World()

    async def work() -> None:
        await world.follower.create_pod(record())
        await world.follower.delete_pod(record())
        await asyncio.sleep(20)
        world.zoo.statuses["shop/web"] = status(Phase.FAILED, RUNS)
        await asyncio.sleep(5)
        assert not any(u.gone for u in world.updates)
        world.zoo.statuses["shop/web"] = FAILED
        await asyncio.sleep(5)
        assert world.updates[-1].gone
        assert world.updates[-1].status.containerStatuses == FAILED.containerStatuses
        assert world.objects.retained == {}

    await world.life(work)


@in_virtual_time
async def test_a_pod_that_is_deleted_is_gone_once_the_provider_does_not_have_it() -> None:
    world = World()

    async def work() -> None:
        await world.follower.create_pod(record())
        await world.follower.delete_pod(record())
        world.zoo.lose()
        await asyncio.sleep(6)
        assert [u.gone for u in world.updates] == [False, True]
        last = world.updates[-1].status
        assert last.phase is Phase.FAILED
        assert last.containerStatuses[0].state.terminated is not None
        # Deleted again, the provider says at once that there is none.
        await world.follower.delete_pod(record())
        assert world.updates[-1].gone

    await world.life(work)


@in_virtual_time
async def test_a_pod_is_lost_only_when_the_provider_has_said_so_twice() -> None:
    world = World()

    async def work() -> None:
        await world.follower.create_pod(record())
        kept = world.zoo.pods["shop/web"]
        world.zoo.lose()
        await asyncio.sleep(5)
        assert world.told == [RUNNING_TOLD]
        world.zoo.pods["shop/web"], world.zoo.statuses["shop/web"] = kept, RUNNING
        await asyncio.sleep(5)
        world.zoo.lose()
        await asyncio.sleep(5)
        assert world.told == [RUNNING_TOLD]
        world.zoo.broken["get"] = Retryable("away")
        await asyncio.sleep(60)
        assert world.told == [RUNNING_TOLD], "a provider that is away has said nothing"
        del world.zoo.broken["get"]
        await asyncio.sleep(5)
        assert world.told[1:] == [("u-1", Phase.FAILED, "NotFound", False)]

    await world.life(work)
    lost = world.updates[-1].status
    main = lost.containerStatuses[0]
    assert main.state.terminated is not None
    assert (main.state.terminated.exitCode, main.state.terminated.reason, main.ready) == (137, "NotFound", False)
    assert lost.condition("Ready") == PodCondition(
        type="Ready",
        status="False",
        reason="PodFailed",
        message="The provider does not have the pod any more",
        lastTransitionTime=main.state.terminated.finishedAt,
    )


@in_virtual_time
async def test_a_lost_pod_is_not_made_again_and_its_deletion_goes_through() -> None:
    world = World()

    async def work() -> None:
        await world.follower.create_pod(record())
        world.zoo.lose()
        await world.follower.update_pod(record(colour="red"))
        await asyncio.sleep(10)
        await world.follower.update_pod(record(colour="blue"))
        await world.follower.create_pod(record(phase="Failed"))
        await world.follower.delete_pod(record(phase="Failed"))

    await world.life(work)
    assert world.zoo.calls == ["create u-1", "update u-1"]
    assert world.told[1] == ("u-1", Phase.FAILED, "NotFound", False)
    assert world.told[-1] == ("u-1", Phase.FAILED, "NotFound", True)


@in_virtual_time
async def test_after_a_restart_what_the_provider_has_is_taken_over_and_told() -> None:
    world = World()
    await world.life(lambda: world.follower.create_pod(record()))
    again = world.again()

    async def work() -> None:
        await again.follower.create_pod(record())
        assert again.told == [RUNNING_TOLD]

    await again.life(work)
    assert world.zoo.calls == ["create u-1"]


@in_virtual_time
async def test_a_pod_that_changed_while_the_agent_was_down_is_updated() -> None:
    world = World()
    await world.life(lambda: world.follower.create_pod(record()))
    again = world.again()
    await again.life(lambda: again.follower.create_pod(record(colour="red")))
    assert world.zoo.calls == ["create u-1", "update u-1"]


@in_virtual_time
async def test_what_had_ended_before_a_restart_is_not_run_again_and_its_end_is_told() -> None:
    world = World()

    async def work() -> None:
        await world.follower.create_pod(record())
        world.zoo.statuses["shop/web"] = FAILED
        await asyncio.sleep(6)

    await world.life(work)
    world.zoo.lose()
    again = world.again()
    # As the record has it: without the status that it has had since.
    await again.life(lambda: again.follower.create_pod(record()))
    assert world.zoo.calls == ["create u-1"]
    assert again.updates[0].status == world.updates[-1].status


@in_virtual_time
async def test_what_the_api_server_says_has_ended_is_not_run() -> None:
    world = World()
    await world.life(lambda: world.follower.create_pod(record(phase="Succeeded")))
    assert (world.zoo.calls, world.updates) == ([], [])


@in_virtual_time
async def test_the_deletion_of_what_had_ended_leaves_it_as_it_ended() -> None:
    world = World()

    async def work() -> None:
        await world.follower.create_pod(record(phase="Succeeded"))
        await world.follower.delete_pod(record(phase="Succeeded"))

    await world.life(work)
    assert world.told == [("u-1", Phase.SUCCEEDED, "", True)]


@in_virtual_time
async def test_a_provider_that_forgot_a_running_pod_over_a_restart_is_given_it_again() -> None:
    world = World()
    await world.life(lambda: world.follower.create_pod(record()))
    world.zoo.lose()
    again = world.again()
    await again.life(lambda: again.follower.create_pod(record()))
    assert world.zoo.calls == ["create u-1"] * 2


@in_virtual_time
async def test_a_new_pod_of_a_name_waits_for_the_end_of_the_old_one() -> None:
    world = World()

    async def work() -> None:
        await world.follower.create_pod(record())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(world.follower.create_pod(record("u-2")))
            await asyncio.sleep(1)
            await world.follower.delete_pod(record())
            assert world.zoo.calls == ["create u-1", "delete u-1"]
            world.zoo.lose()
        assert world.zoo.calls[-1] == "create u-2"
        assert world.told == [
            RUNNING_TOLD,
            ("u-1", Phase.FAILED, "NotFound", True),
            ("u-2", Phase.RUNNING, "", False),
        ]

    await world.life(work)


@in_virtual_time
async def test_the_end_of_an_older_pod_does_not_end_the_one_that_has_its_name_now() -> None:
    world = World()

    async def work() -> None:
        await world.follower.create_pod(record("u-2"))
        await world.follower.delete_pod(record("u-1"))
        assert world.zoo.calls == ["create u-2"]
        assert world.told[-1] == ("u-1", Phase.FAILED, "NotFound", True)

    await world.life(work)


@in_virtual_time
async def test_a_manifest_put_back_while_its_pod_ends_is_made_again() -> None:
    world = World()

    async def work() -> None:
        await world.follower.create_pod(record())
        await world.follower.delete_pod(record())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(world.follower.create_pod(record()))
            await asyncio.sleep(1)
            world.zoo.lose()
        assert world.zoo.calls == ["create u-1", "delete u-1", "create u-1"]

    await world.life(work)


@in_virtual_time
async def test_a_pod_waits_for_the_objects_that_it_needs_and_says_so() -> None:
    world = World()
    sources = [{"secretRef": {"name": "key"}}, {"configMapRef": {"name": "spare", "optional": True}}]
    needy = record(containers=[{"name": "main", "image": "i", "envFrom": sources}])

    async def work() -> None:
        with pytest.raises(Retryable, match=r'^secret "key" not found$'):
            await world.follower.create_pod(needy)
        assert world.events.messages("MandatorySecretNotFound") == ['secret "key" not found']
        assert world.events.messages("OptionalConfigMapNotFound") == ['configmap "spare" not found']
        assert world.zoo.calls == []
        world.objects.put("secrets", "key")
        await world.follower.create_pod(needy)
        assert world.zoo.calls == ["create u-1"]

    await world.life(work)


@in_virtual_time
async def test_whatever_a_provider_raises_is_tried_again_by_the_controller() -> None:
    world = World()
    world.zoo.broken["create"] = ValueError("bad cage")
    published: list[Any] = []
    controller = PodController(world.follower, world.events, published.append)

    async def work() -> None:
        running = asyncio.ensure_future(controller.run())
        await asyncio.sleep(0)
        controller.desired_changed(DesiredChange(record(), None))
        await asyncio.sleep(10)
        assert world.zoo.calls == ["create u-1"] * 4
        del world.zoo.broken["create"]
        await asyncio.sleep(60)
        assert world.zoo.calls == ["create u-1"] * 5
        running.cancel()

    await world.life(work)
    assert world.events.reasons == ["ProviderCreateFailed", "ProviderCreateSuccess"]
    assert world.events.messages("ProviderCreateFailed") == ["ValueError: bad cage"]
    assert published[0].status.reason == "ProviderFailed"


@in_virtual_time
async def test_a_provider_that_refuses_says_so_itself() -> None:
    world = World()
    world.zoo.broken["create"] = Permanent("Full", "no cage is free")

    async def work() -> None:
        with pytest.raises(Permanent, match="no cage is free"):
            await world.follower.create_pod(record())

    await world.life(work)
