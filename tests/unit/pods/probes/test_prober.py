import asyncio
import heapq
from collections.abc import AsyncIterator, Mapping

import pytest

from agent.model.container import Probe
from agent.model.objects import ObjectReference
from agent.model.pod import Pod, pod_from_dict
from agent.pods.knowledge import Health
from agent.pods.probes.prober import Prober
from agent.pods.probes.tally import Outcome, Result
from agent.pods.probes.target import Target


class FakeTime:
    def __init__(self) -> None:
        self.now = 0.0
        self.sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self.sleepers, (self.now + seconds, len(self.sleepers), future))
        await future

    async def go_to(self, until: float) -> None:
        await settle()
        while self.sleepers and self.sleepers[0][0] <= until:
            self.now, _, future = heapq.heappop(self.sleepers)
            if not future.done():
                future.set_result(None)
            await settle()
        self.now = until


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class World:
    """Answers probes by their exec command's first word; remembers when they were made."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.time = FakeTime()
        self.answers: dict[str, Result] = {}
        self.made: list[tuple[str, float]] = []
        self.events: list[str] = []
        self.about: list[str] = []
        self.woken: list[str] = []
        self.prober = Prober(
            tasks,
            self,
            self,
            self.woken.append,
            monotonic=self.time.monotonic,
            sleep=self.time.sleep,
            part=lambda: 0.5,
        )

    async def attempt(self, target: Target, probe: Probe) -> Outcome:
        assert probe.exec is not None
        name = probe.exec.command[0]
        self.made.append((name, self.time.now))
        return Outcome(self.answers.get(name, Result.SUCCESS), "out")

    def record(
        self, about: ObjectReference, kind: str, reason: str, message: str, annotations: Mapping[str, str] | None = None
    ) -> None:
        self.about.append(about.fieldPath)
        self.events.append(f"{kind} {reason} {message}")

    def times(self, name: str) -> list[float]:
        return [at for made, at in self.made if made == name]

    def health(self) -> Health:
        return self.prober.health("u")["id"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with asyncio.TaskGroup() as tasks:
        world = World(tasks)
        yield world
        world.prober.close()


def pod(**probes: dict[str, object]) -> Pod:
    named = {f"{kind}Probe": {"exec": {"command": [kind]}, **spec} for kind, spec in probes.items()}
    spec = {"containers": [{"name": "c", **named}]}
    return pod_from_dict({"metadata": {"name": "p", "uid": "u"}, "spec": spec})


def start(world: World, of: Pod, **how: object) -> None:
    world.prober.start(of, of.spec.containers[0], "id", "10.0.0.9", **how)  # type: ignore[arg-type]


async def test_a_container_without_probes_is_healthy_at_once(world: World) -> None:
    start(world, pod())
    assert world.prober.health("u") == {"id": Health()}
    assert world.prober.health("other") == {}


async def test_readiness_is_probed_at_once_then_by_its_period_and_wakes_on_a_change(world: World) -> None:
    start(world, pod(readiness={"periodSeconds": 10}))
    assert world.health() == Health(started=True, ready=False)
    await world.time.go_to(25)
    assert world.times("readiness") == [0, 10, 20]
    assert world.health().ready
    assert world.woken == ["u"]


async def test_a_container_gets_unready_after_the_threshold_and_ready_again(world: World) -> None:
    start(world, pod(readiness={"periodSeconds": 1, "failureThreshold": 2}))
    await world.time.go_to(0.5)
    world.answers["readiness"] = Result.FAILURE
    await world.time.go_to(1.5)
    assert world.health().ready
    await world.time.go_to(2.5)
    assert not world.health().ready
    assert world.events == ["Warning Unhealthy Readiness probe failed: out"] * 2
    assert set(world.about) == {"spec.containers{c}"}
    world.answers["readiness"] = Result.SUCCESS
    await world.time.go_to(3.5)
    assert world.health().ready
    assert world.woken == ["u"] * 3


async def test_the_initial_delay_counts_from_the_containers_start(world: World) -> None:
    start(world, pod(readiness={"initialDelaySeconds": 5}), running_for_s=2)
    await world.time.go_to(4)
    assert world.times("readiness") == [3]


async def test_other_probes_wait_for_startup_and_then_do_not_wait_a_period(world: World) -> None:
    world.answers["startup"] = Result.FAILURE
    start(world, pod(startup={"periodSeconds": 2, "failureThreshold": 9}, readiness={}, liveness={}))
    await world.time.go_to(5)
    assert world.health() == Health(started=False, ready=False)
    world.answers["startup"] = Result.SUCCESS
    await world.time.go_to(9)
    assert world.times("startup") == [0, 2, 4, 6]
    assert (world.times("readiness"), world.times("liveness")) == ([6], [6])
    assert world.health() == Health(started=True, ready=True)


async def test_a_failed_startup_kills_the_container_and_ends_the_probing(world: World) -> None:
    world.answers["startup"] = Result.FAILURE
    start(world, pod(startup={"periodSeconds": 1, "failureThreshold": 2}, liveness={}))
    await world.time.go_to(20)
    assert world.times("startup") == [0, 1]
    assert world.times("liveness") == []
    assert world.health().failed == "Container c failed startup probe, will be restarted"


async def test_a_dead_container_is_not_probed_for_life_again(world: World) -> None:
    world.answers["liveness"] = Result.FAILURE
    start(world, pod(liveness={"periodSeconds": 1, "failureThreshold": 3}))
    await world.time.go_to(20)
    assert world.times("liveness") == [0, 1, 2]
    assert world.health().failed == "Container c failed liveness probe, will be restarted"
    assert world.woken == ["u"]


async def test_a_probe_that_cannot_be_made_is_tried_thrice_and_counts_for_nothing(world: World) -> None:
    world.answers["liveness"] = Result.ERROR
    start(world, pod(liveness={"periodSeconds": 1, "failureThreshold": 1}))
    await world.time.go_to(1.5)
    assert world.times("liveness") == [0, 0, 0, 1, 1, 1]
    assert world.health() == Health()
    assert world.events == ["Warning Unhealthy Liveness probe errored and resulted in unknown state: out"] * 2


async def test_an_adopted_container_keeps_its_health_and_is_probed_within_a_period(world: World) -> None:
    of = pod(startup={}, readiness={"periodSeconds": 10}, liveness={"periodSeconds": 4})
    start(world, of, running_for_s=100, adopted=Health(started=True, ready=True))
    assert world.health() == Health(started=True, ready=True)
    await world.time.go_to(5)
    assert world.times("startup") == []
    assert (world.times("readiness"), world.times("liveness")) == ([5], [2])
    assert world.woken == []


async def test_an_adopted_container_that_had_not_started_goes_on_with_startup(world: World) -> None:
    start(world, pod(startup={}, readiness={}), adopted=Health(started=False, ready=False))
    assert world.health() == Health(started=False, ready=False)
    await world.time.go_to(6)
    assert world.health() == Health(started=True, ready=True)


async def test_an_ending_pod_is_asked_for_its_readiness_only(world: World) -> None:
    start(world, pod(readiness={"periodSeconds": 1}, liveness={"periodSeconds": 1}))
    await world.time.go_to(0.5)
    world.prober.quiet("u")
    await world.time.go_to(2.5)
    assert (world.times("readiness"), world.times("liveness")) == ([0, 1, 2], [0])


async def test_a_forgotten_pod_is_not_probed(world: World) -> None:
    start(world, pod(readiness={"periodSeconds": 1}))
    start(world, pod(readiness={"periodSeconds": 1}))  # a second start of the same container is none
    await world.time.go_to(0.5)
    world.prober.forget("u")
    world.prober.stop("id")
    await world.time.go_to(5)
    assert world.times("readiness") == [0]
    assert world.prober.health("u") == {}


async def test_a_bug_in_a_probe_ends_its_owner() -> None:
    class Broken:
        async def attempt(self, target: Target, probe: Probe) -> Outcome:
            raise KeyError("bug")

        def record(
            self,
            about: ObjectReference,
            kind: str,
            reason: str,
            message: str,
            annotations: Mapping[str, str] | None = None,
        ) -> None: ...

    broken = Broken()
    of = pod(readiness={})
    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as tasks:
            Prober(tasks, broken, broken, lambda _: None).start(of, of.spec.containers[0], "id", "")
