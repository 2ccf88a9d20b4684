"""Images come one after the other, at their rate, in their time, behind pods' own; what came is never asked twice."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

from agent.cri._generated import api_pb2
from agent.cri.content import BlobInfo, Ingest
from agent.cri.leases import Leased
from agent.errors import NotFound, Permanent
from agent.model.objects import ObjectReference
from agent.pods.image_access import Verification
from agent.pods.image_rewrites import Rewrites
from agent.pods.machine import Machine
from agent.pods.prefetch.pins import Pins
from agent.pods.prefetch.prefetcher import LEASE_LABEL, SILENT_S, Prefetcher, Rules, lease_of
from agent.pods.prefetch.told import State
from agent.pods.pull_records import PullRecords
from agent.pods.pulls import PullGate
from tests.fakes.store import MemoryStore
from tests.fakes.virtual_time import elapsed, in_virtual_time
from tests.unit.pods.scene import FakeEvents

STEP_S = 0.02
SIZE = 10_000_000
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()


class LoopClock:
    def monotonic(self) -> float:
        return elapsed()

    def wall(self) -> float:
        return NOON + elapsed()

    def since(self, unix_s: float) -> float:
        return self.wall() - unix_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class Runtime:
    """containerd with a registry behind a line: blobs, writes that were begun, leases, images."""

    speed: float = 50e6
    """Bytes a second."""
    down: str = ""
    """What a pull says; empty: the registry answers."""
    stalls: bool = False
    """It takes the connection, and nothing comes."""
    images: set[str] = field(default_factory=set)
    leases: dict[str, set[str]] = field(default_factory=dict)
    blobs: dict[str, BlobInfo] = field(default_factory=dict)
    writes: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    at_once: int = 0
    most_at_once: int = 0
    pulls: list[str] = field(default_factory=list)

    # What the prefetcher asks of CRI

    async def image_status(self, image: api_pb2.ImageSpec) -> api_pb2.Image | None:
        if image.image not in self.images:
            return None
        return api_pb2.Image(id=f"sha256:{image.image}", size=SIZE)

    async def pull_image(
        self, image: api_pb2.ImageSpec, auth: api_pb2.AuthConfig | None = None, *, lease: str = ""
    ) -> str:
        self.pulls.append(image.image)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self._pull(image.image, lease)
        finally:
            self.at_once -= 1
        self.images.add(image.image)
        return f"sha256:{image.image}"

    async def _pull(self, name: str, lease: str) -> None:
        held = self.leases[lease]
        self._answer()
        layer, ref = f"sha256:layer-of-{name}", f"layer-sha256:layer-of-{name}"
        self._put(f"sha256:config-of-{name}", 100, held)
        labels = {"containerd.io/gc.ref.content.config": f"sha256:config-of-{name}"}
        self._put(f"sha256:manifest-of-{name}", 500, held, labels)
        held.add(ref)
        while self.writes.setdefault(ref, 0) < SIZE:
            await asyncio.sleep(STEP_S)
            self._answer()
            if not self.stalls:
                piece = min(int(self.speed * STEP_S), SIZE - self.writes[ref])
                self.writes[ref] += piece
                self.sent += piece
        held.discard(ref)
        del self.writes[ref]
        self._put(layer, SIZE, held)

    def _answer(self) -> None:
        if self.down:
            raise Permanent("", self.down)

    def _put(self, digest: str, size: int, held: set[str], labels: Mapping[str, str] | None = None) -> None:
        self.blobs.setdefault(digest, BlobInfo(digest, size, time.time() + 3600, labels or {}))
        held.add(digest)

    # Of its content and its leases

    async def info(self, digest: str) -> BlobInfo | None:
        return self.blobs.get(digest)

    async def read(self, digest: str, limit: int) -> bytes:
        name = digest.removeprefix("sha256:manifest-of-")
        config = {"digest": f"sha256:config-of-{name}", "size": 100}
        return json.dumps({"config": config, "layers": [{"digest": f"sha256:layer-of-{name}", "size": SIZE}]}).encode()

    async def ingests(self) -> Mapping[str, Ingest]:
        return {ref: Ingest(offset, SIZE) for ref, offset in self.writes.items()}

    async def create(self, lease: str, labels: Mapping[str, str]) -> None:
        assert labels == {LEASE_LABEL: "image"}
        self.leases.setdefault(lease, set())

    async def delete(self, lease: str) -> None:
        for one in self.leases.pop(lease, set()):
            self.writes.pop(one, None)

    async def labelled(self, label: str) -> frozenset[str]:
        return frozenset(self.leases)

    async def held(self, lease: str) -> Leased:
        if lease not in self.leases:
            raise NotFound("no such lease")
        held = self.leases[lease]
        return Leased(tuple(one for one in held if one in self.blobs), tuple(one for one in held if one in self.writes))

    async def label(self, name: str, labels: Mapping[str, str]) -> bool:
        return name in self.images


@dataclass
class Lab:
    runtime: Runtime
    prefetcher: Prefetcher
    pins: Pins
    pulls: PullGate
    events: FakeEvents
    short: list[bool]

    def states(self) -> list[State]:
        return [one.state for one in self.prefetcher.statuses]

    async def until(self, *states: State) -> float:
        """Until the images are in these states; the seconds that it took."""
        began = elapsed()
        while self.states() != list(states):
            await asyncio.sleep(0.05)
            assert elapsed() - began < 24 * 3600, self.prefetcher.statuses
        return elapsed() - began


@asynccontextmanager
async def lab(
    *images: str, rules: Rules | None = None, runtime: Runtime | None = None, rewrites: Rewrites | None = None
) -> AsyncIterator[Lab]:
    runtime, store, events, short = runtime or Runtime(), MemoryStore(), FakeEvents(), [False]
    pins = Pins(store, images)
    await pins.load()
    gate = PullGate(5, 0, 1)
    access = PullRecords(store, Verification.PULLED, ())
    machine = SimpleNamespace(
        pulls=gate, access=access, plugins=None, logins=None, rewrites=rewrites or Rewrites(), events=events
    )
    prefetcher = Prefetcher(
        cast(Machine, machine), runtime, runtime, runtime, runtime, pins, rules or Rules(), LoopClock(),
        ObjectReference(kind="Node", name="edge-1", uid="edge-1"), lambda: short[0], lambda: None,
        lambda unix: datetime.fromtimestamp(unix, UTC),
    )  # fmt: skip
    task = asyncio.ensure_future(prefetcher.run())
    try:
        yield Lab(runtime, prefetcher, pins, gate, events, short)
    finally:
        failed = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if failed:
            task.result()


@in_virtual_time
async def test_images_come_one_after_the_other_in_their_order_and_leave_no_lease() -> None:
    async with lab("a:1", "b:1") as it:
        await it.until(State.PRESENT, State.PRESENT)
        await asyncio.sleep(1)
        assert it.runtime.pulls == ["a:1", "b:1"]
        assert it.runtime.most_at_once == 1
        assert not it.runtime.leases
        assert it.events.reasons == ["Pulling", "Pulled", "Pulling", "Pulled"]
        assert 'Pulled image "a:1" ahead in' in it.events.messages("Pulled")[0]


@in_virtual_time
async def test_what_is_here_is_not_pulled_and_nobody_is_told() -> None:
    async with lab("a:1", runtime=Runtime(images={"a:1"})) as it:
        await it.until(State.PRESENT)
        assert not it.runtime.pulls
        assert not it.events.all


@in_virtual_time
async def test_the_rate_holds_on_the_whole_and_pauses_lose_nothing() -> None:
    async with lab("a:1", "b:1", "c:1", rules=Rules(rate=2_000_000)) as it:
        took = await it.until(State.PRESENT, State.PRESENT, State.PRESENT)
        assert it.runtime.sent == 3 * SIZE
        # The first burst is free, and the last overrun not waited for.
        assert 3 * SIZE / 2_000_000 - 6 <= took <= 3 * SIZE / 2_000_000 + 2
        assert len(it.runtime.pulls) > 3


@in_virtual_time
async def test_progress_is_told_in_bytes() -> None:
    async with lab("a:1", runtime=Runtime(speed=1e6)) as it:
        await asyncio.sleep(5)
        (status,) = it.prefetcher.statuses
        assert status.state is State.PULLING
        assert status.total == SIZE + 100
        assert 3_000_000 < status.bytes < 5_500_000
        await it.until(State.PRESENT)
        assert it.prefetcher.statuses[0].bytes == SIZE + 100


@in_virtual_time
async def test_after_a_cut_it_goes_on_where_it_was_soon_after_the_registry_is_back() -> None:
    async with lab("a:1", runtime=Runtime(speed=1e6)) as it:
        await asyncio.sleep(5)
        it.runtime.down = "dial tcp: connection refused"
        await it.until(State.FAILED)
        await asyncio.sleep(3600)
        assert len(it.events.messages("Failed")) == 1
        it.runtime.down = ""
        assert await it.until(State.PRESENT) < 30 + 6
        assert it.runtime.sent == SIZE


@in_virtual_time
async def test_with_the_networks_return_it_is_tried_at_once_and_a_failure_is_not_told_again() -> None:
    async with lab("a:1", runtime=Runtime(down="dial tcp: connection refused")) as it:
        await asyncio.sleep(3600 + 1)
        for answers in (False, True):
            tries = len(it.runtime.pulls)
            if answers:
                it.runtime.down = ""
            it.prefetcher.retry()
            await asyncio.sleep(0.5)
            assert len(it.runtime.pulls) == tries + 1
        assert it.states() == [State.PRESENT]
        assert len(it.events.messages("Failed")) == 1


@in_virtual_time
async def test_an_image_that_cannot_be_pulled_holds_up_no_other_and_is_asked_for_seldom() -> None:
    runtime = Runtime(down="manifest unknown: not found")
    async with lab("a:1", runtime=runtime) as it:
        await it.until(State.FAILED)
        await asyncio.sleep(3600)
        assert len(runtime.pulls) < 25
        runtime.down = ""
        it.pins.node_names(("b:1",))
        it.prefetcher.wake()
        await it.until(State.FAILED, State.PRESENT)


@in_virtual_time
async def test_a_pull_of_which_nothing_comes_is_ended_and_tried_again() -> None:
    runtime = Runtime(stalls=True)
    async with lab("a:1", runtime=runtime) as it:
        assert await it.until(State.FAILED) >= SILENT_S
        assert "RegistryUnavailable" in it.events.messages("Failed")[0]
        runtime.stalls = False
        await it.until(State.PRESENT)


@in_virtual_time
async def test_outside_of_its_time_nothing_comes_and_at_its_end_a_pull_pauses() -> None:
    rules = Rules(windows=((12 * 60 + 10, 12 * 60 + 11), (13 * 60, 14 * 60)))
    async with lab("a:1", rules=rules, runtime=Runtime(speed=1e5)) as it:
        await asyncio.sleep(500)
        assert it.states() == [State.PAUSED]
        assert it.prefetcher.statuses[0].message == "waits for 12:10-12:11,13:00-14:00"
        assert not it.runtime.pulls
        await asyncio.sleep(200)
        half = it.runtime.sent
        assert 3e6 < half < 7e6
        assert it.states() == [State.PAUSED]
        await asyncio.sleep(2700)
        assert it.runtime.sent == half
        await it.until(State.PRESENT)
        assert it.runtime.sent == SIZE
        assert elapsed() > 3600


@in_virtual_time
async def test_a_pods_pull_goes_first() -> None:
    async with lab("a:1", runtime=Runtime(speed=1e6)) as it:
        await asyncio.sleep(3)
        async with it.pulls.turn():
            await asyncio.sleep(0.5)
            assert it.runtime.at_once == 0
            assert it.prefetcher.statuses[0].message == "a pod's image comes first"
            await asyncio.sleep(600)
            assert it.runtime.at_once == 0
        assert await it.until(State.PRESENT) < 8
        assert it.runtime.sent == SIZE


@in_virtual_time
async def test_a_machine_that_is_short_of_disk_gets_no_more_images() -> None:
    async with lab("a:1", runtime=Runtime(speed=1e6)) as it:
        await asyncio.sleep(3)
        it.short[0] = True
        await asyncio.sleep(60)
        assert it.states() == [State.PAUSED]
        it.short[0] = False
        await it.until(State.PRESENT)


@in_virtual_time
async def test_what_is_wanted_no_more_is_given_up_with_all_that_came_of_it() -> None:
    async with lab(runtime=Runtime(speed=1e6)) as it:
        it.pins.node_names(("a:1",))
        it.prefetcher.wake()
        await asyncio.sleep(3)
        assert lease_of("a:1") in it.runtime.leases
        it.pins.node_names(())
        it.prefetcher.wake()
        await asyncio.sleep(2)
        assert not it.runtime.leases
        assert not it.runtime.writes
        assert it.runtime.at_once == 0
        assert it.prefetcher.statuses == []


@in_virtual_time
async def test_the_next_agent_goes_on_with_what_the_last_one_left() -> None:
    runtime = Runtime(speed=1e6)
    async with lab("a:1", runtime=runtime):
        await asyncio.sleep(5)
    assert runtime.at_once == 0
    async with lab("a:1", runtime=runtime) as it:
        await it.until(State.PRESENT)
    assert runtime.sent == SIZE


@in_virtual_time
async def test_one_that_was_whole_when_it_was_paused_is_noted_as_pulled() -> None:
    async with lab("a:1", runtime=Runtime(speed=1e6)) as it:
        await asyncio.sleep(3)
        it.runtime.images.add("a:1")
        async with it.pulls.turn():
            await it.until(State.PRESENT)
        assert it.events.reasons == ["Pulling", "Pulled"]
        assert not it.runtime.leases


@in_virtual_time
async def test_one_that_the_last_agent_did_not_note_is_pulled_to_its_end() -> None:
    runtime = Runtime(images={"a:1"}, leases={lease_of("a:1"): set()})
    async with lab("a:1", runtime=runtime) as it:
        await it.until(State.PRESENT)
        await asyncio.sleep(1)
        assert runtime.pulls == ["a:1"]
        assert not runtime.leases


@in_virtual_time
async def test_an_image_that_somebody_removes_comes_again() -> None:
    async with lab("a:1") as it:
        await it.until(State.PRESENT)
        it.runtime.images.clear()
        await asyncio.sleep(400)
        assert it.runtime.images == {"a:1"}


@in_virtual_time
async def test_it_is_pulled_from_where_pods_would_pull_it_and_found_under_either_name() -> None:
    rewrites = Rewrites((("docker.io", "mirror.example"),))
    async with lab("a:1", rewrites=rewrites) as it:
        await it.until(State.PRESENT)
        assert it.runtime.pulls == ["mirror.example/library/a:1"]
    async with lab("a:1", rewrites=rewrites, runtime=Runtime(images={"a:1"})) as it:
        await it.until(State.PRESENT)
        assert not it.runtime.pulls
