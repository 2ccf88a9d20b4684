"""The mock provider keeps the contract, and does what its config says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.config import Settings
from agent.errors import ConfigError, NotFound, Permanent, Retryable
from agent.kube.events import LoggedEvents
from agent.kube.objects import RecordedObjects
from agent.kube.tokens import StandaloneTokens
from agent.model.logs import LogOptions, LogStream
from agent.model.record import PodRecord
from agent.model.status import Phase
from agent.providers.contract import MachineFacts, PodUpdate, ProviderContext
from agent.providers.mock import MockProvider
from tests.fakes.store import MemoryStore
from tests.fakes.virtual_time import beside, elapsed, in_virtual_time


def record(name: str = "web", uid: str = "", **meta: Any) -> PodRecord:
    meta = {"name": name, "namespace": "shop", "uid": uid or f"uid-{name}", **meta}
    return PodRecord.decode(msgspec.json.encode({"metadata": meta, "spec": {"containers": [{"name": "main"}]}}))


class World:
    def __init__(self, folder: Path, config: str = "", store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.updates: list[PodUpdate] = []
        file = folder / "mock.yaml"
        file.write_text(config)
        context = ProviderContext(
            settings=Settings("n"),
            store=self.store,
            objects=RecordedObjects(self.store),
            tokens=StandaloneTokens(),
            events=LoggedEvents(),
            facts=MachineFacts(1, {}),
            node_ips=("10.0.0.1",),
            health_changed=lambda: None,
            config_file=file,
        )
        self.mock = MockProvider(context, wall=elapsed)
        self.mock.notify_pods(self.updates.append)

    async def life(self, work: Callable[[], Any]) -> None:
        await beside(self.mock.run(), work)

    @property
    def told(self) -> list[tuple[str, bool]]:
        return [(str(u.status.phase), u.gone) for u in self.updates]

    async def log(self, **options: Any) -> list[str]:
        read = self.mock.get_container_logs("shop", "web", "main", LogOptions(**options))
        return [line.decode().rstrip() async for line in read]


class Ends:
    """Both ends of a command's streams; also one forwarded connection."""

    tty, stderr = False, None

    def __init__(self, *given: bytes) -> None:
        self._given = [*given, b""]
        self.got = b""
        self.stdin = self.stdout = self

    async def read(self, limit: int = 65536) -> bytes:
        return self._given.pop(0)

    async def write(self, data: bytes) -> None:
        self.got += data

    async def write_eof(self) -> None:
        self.got += b"."

    async def resizes(self) -> Any:
        sizes: tuple[Any, ...] = ()
        for size in sizes:
            yield size


@in_virtual_time
async def test_a_pod_starts_and_ends_after_the_times_of_the_config(tmp_path: Path) -> None:
    world = World(tmp_path, "latency: {create: 1, start: 2, stop: 3}")

    async def work() -> None:
        await world.mock.create_pod(record())
        assert elapsed() == 1
        assert world.told == [("Pending", False)]
        await asyncio.sleep(2.1)
        assert world.told[1:] == [("Running", False)]
        await world.mock.delete_pod(record())
        await asyncio.sleep(2.9)
        assert len(world.told) == 2
        await asyncio.sleep(0.2)
        assert world.told[2:] == [("Succeeded", True)]
        assert await world.mock.get_pods() == ()
        assert world.store.rows == {}

    await world.life(work)


@in_virtual_time
async def test_a_pod_ends_within_its_grace_period_and_a_second_order_only_shortens_it(tmp_path: Path) -> None:
    world = World(tmp_path, "latency: {stop: 1000}")

    async def work() -> None:
        await world.mock.create_pod(record())
        await world.mock.delete_pod(record(deletionGracePeriodSeconds=60))
        await world.mock.delete_pod(record(deletionGracePeriodSeconds=5))
        await world.mock.delete_pod(record(deletionGracePeriodSeconds=30))
        await asyncio.sleep(5.1)
        assert world.told[-1] == ("Succeeded", True)

    await world.life(work)


@in_virtual_time
async def test_a_deletion_that_shortens_nothing_writes_nothing(tmp_path: Path) -> None:
    """Its write could come after the one that takes the ended pod out of the record."""
    world = World(tmp_path, "latency: {stop: 5}")

    async def work() -> None:
        await world.mock.create_pod(record())
        await world.mock.delete_pod(record())
        kept = dict(world.store.rows)
        world.store.rows.clear()
        await asyncio.sleep(1)
        await world.mock.delete_pod(record())
        assert world.store.rows == {}
        world.store.rows.update(kept)

    await world.life(work)


@in_virtual_time
async def test_pods_survive_a_restart_as_if_there_had_been_none(tmp_path: Path) -> None:
    world = World(tmp_path, "latency: {start: [1, 9], stop: 20}")

    async def work() -> None:
        for name in ("web", "db"):
            await world.mock.create_pod(record(name))
        await asyncio.sleep(20)
        await world.mock.delete_pod(record("db"))

    await world.life(work)
    before = await world.mock.get_pod_status("shop", "web")
    again = World(tmp_path, "latency: {start: [1, 9]}", world.store)

    async def later() -> None:
        await asyncio.sleep(1)
        assert await again.mock.get_pod_status("shop", "web") == before
        await again.mock.create_pod(record())
        assert await again.mock.get_pod_status("shop", "web") == before
        await asyncio.sleep(25)
        assert [one.uid for one in await again.mock.get_pods()] == ["uid-web"]
        await again.mock.create_pod(record("new"))
        assert (await again.mock.get_pod_status("shop", "new")).phase is Phase.PENDING

    await again.life(later)
    assert ("Succeeded", True) in again.told
    addresses = {u.status.podIP for u in again.updates if u.status.podIP}
    assert len(addresses) == 2


async def outcome(call: Awaitable[Any]) -> bool:
    try:
        await call
    except Retryable:
        return False
    return True


@in_virtual_time
async def test_calls_fail_at_their_rate_and_alike_for_the_same_seed(tmp_path: Path) -> None:
    seen = []
    for seed in (1, 1, 2):
        world = World(tmp_path, f"seed: {seed}\nfailures: {{create: 0.3}}")

        async def work(world: World = world) -> None:
            seen.append([await outcome(world.mock.create_pod(record(f"p{n}"))) for n in range(300)])
            while not await outcome(world.mock.create_pod(record("again"))):
                pass

        await world.life(work)
    assert seen[0] == seen[1] != seen[2]
    assert 60 < seen[0].count(False) < 120


@in_virtual_time
async def test_calls_fail_alike_in_every_namespace(tmp_path: Path) -> None:
    seen = []
    for namespace in ("shop", "test-1f3a"):
        world = World(tmp_path, "seed: 1\nfailures: {create: 0.3}")

        async def work(world: World = world, namespace: str = namespace) -> None:
            pods = [record(f"p{n}", namespace=namespace) for n in range(100)]
            seen.append([await outcome(world.mock.create_pod(pod)) for pod in pods])

        await world.life(work)
    assert seen[0] == seen[1]
    assert True in seen[0]
    assert False in seen[0]


@in_virtual_time
async def test_what_it_does_not_have_is_not_found(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def work() -> None:
        for call in (world.mock.update_pod, world.mock.delete_pod):
            with pytest.raises(NotFound):
                await call(record())
        for read in (world.mock.get_pod, world.mock.get_pod_status):
            with pytest.raises(NotFound):
                await read("shop", "web")

    await world.life(work)


@in_virtual_time
async def test_the_nodes_capacity_is_the_configs(tmp_path: Path) -> None:
    world = World(tmp_path, "capacity: {cpu: 64, pods: '1000', example.com/gpu: 8}")
    amounts = {"cpu": "2", "pods": "110", "memory": "1Gi"}
    node: dict[str, Any] = {"status": {"capacity": dict(amounts), "allocatable": dict(amounts)}}
    await world.mock.configure_node(node)
    expected = {"cpu": "64", "pods": "1000", "memory": "1Gi", "example.com/gpu": "8"}
    assert node["status"] == {"capacity": expected, "allocatable": expected}


@in_virtual_time
async def test_pings_fail_at_their_rate(tmp_path: Path) -> None:
    await World(tmp_path).mock.ping()
    with pytest.raises(Retryable):
        await World(tmp_path, "failures: {ping: 1}").mock.ping()


@in_virtual_time
async def test_a_log_has_a_line_every_so_often_and_is_followed_to_the_pods_end(tmp_path: Path) -> None:
    world = World(tmp_path, "containers: {logSeconds: 10}\nlatency: {stop: 15, start: 5}")

    async def work() -> None:
        await world.mock.create_pod(record())
        with pytest.raises(Permanent, match="is waiting to start"):
            await world.log()
        await asyncio.sleep(26)
        assert await world.log() == [f"main in shop/web: line {n}" for n in range(3)]
        assert await world.log(tail_lines=1) == ["main in shop/web: line 2"]
        assert await world.log(since_ns=int(15e9)) == ["main in shop/web: line 1", "main in shop/web: line 2"]
        assert await world.log(limit_bytes=6) == ["main i"]
        assert await world.log(stream=LogStream.STDERR) == []
        assert (await world.log(timestamps=True, tail_lines=1))[0].startswith("1970-01-01T00:00:25.000000000Z main in")
        with pytest.raises(Permanent, match="previous terminated container"):
            await world.log(previous=True)
        await world.mock.delete_pod(record())
        assert await world.log(follow=True, tail_lines=0) == ["main in shop/web: line 3"]

    await world.life(work)


@in_virtual_time
async def test_commands_and_connections_are_answered(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def work() -> None:
        await world.mock.create_pod(record())
        await asyncio.sleep(1)
        io = Ends(b"one", b"two")
        assert await world.mock.run_in_container("shop", "web", "main", ["cat"], io) == 0
        assert io.got == b"onetwo"
        assert await world.mock.run_in_container("shop", "web", "main", ["exit", "3"], Ends()) == 3
        io = Ends()
        assert await world.mock.run_in_container("shop", "web", "main", ["ls", "/"], io) == 0
        assert io.got == b"main in shop/web: ls /\n"
        connection = Ends(b"ping")
        await world.mock.port_forward("shop", "web", 80, connection)
        assert connection.got == b"ping."

    await world.life(work)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("latency: {start: [1]}", "Expected `array` of length >= 2 - at `$.latency.start`"),
        ("latency: {strat: 1}", "Object contains unknown field `strat` - at `$.latency`"),
        ("failures: {create: 2}", "Expected `float` <= 1.0 - at `$.failures.create`"),
        ("- 1", "Expected `object`, got `array`"),
        ("a: [", "not YAML: while parsing"),
    ],
)
def test_a_wrong_config_is_one_line_that_names_the_file_and_the_key(tmp_path: Path, config: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        World(tmp_path, config)
    assert str(caught.value).startswith(f"--provider-config {tmp_path / 'mock.yaml'}: {says}")
    assert "\n" not in str(caught.value)
