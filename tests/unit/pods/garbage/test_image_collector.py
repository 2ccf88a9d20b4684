"""Images are removed when their file system is full, and what is not enough is told as the kubelet tells it."""

from __future__ import annotations

import asyncio

import pytest

from agent.cri._generated import api_pb2
from agent.errors import Permanent, Retryable
from agent.model.objects import ObjectReference
from agent.pods.garbage.image_collector import EVERY_S, ImageCollector, Room
from agent.pods.garbage.image_plan import ImageRules
from tests.fakes.skipped_time import SkippedTime, quiet, with_skipped_time
from tests.unit.pods.scene import FakeEvents

MIB = 2**20
RULES = ImageRules(85, 80, 0)


class Machine:
    """Images of 10 MiB each on a disk of 100 MiB."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.refused: set[str] = set()
        self.pinned: set[str] = set()
        self.used: set[str] = set()
        self.other_mib = 0
        self.capacity = 100 * MIB
        self.away = False
        self.forgotten: list[str] = []
        self.events = FakeEvents()
        self.comes: dict[str, str] = {}
        """When the first is removed, a pod comes that wants the second."""

    async def list_images(self) -> list[api_pb2.Image]:
        if self.away:
            raise Retryable("away")
        return [
            api_pb2.Image(id=name, repo_tags=[f"docker.io/library/{name}:1"], size=10 * MIB, pinned=name in self.pinned)
            for name in self.names
        ]

    async def remove_image(self, image: api_pb2.ImageSpec) -> None:
        if image.image in self.refused:
            raise Permanent("", f"cannot remove {image.image}")
        self.names.remove(image.image)
        if wanted := self.comes.get(image.image):
            self.used.add(wanted)

    async def references(self) -> frozenset[str]:
        return frozenset(self.used)

    async def room(self) -> Room:
        return Room(self.capacity, max(0, self.capacity - (10 * len(self.names) + self.other_mib) * MIB))

    async def removed(self, image_id: str) -> None:
        self.forgotten.append(image_id)

    def collector(self, rules: ImageRules = RULES) -> ImageCollector:
        about = ObjectReference(kind="Node", name="edge", uid="edge")
        return ImageCollector(
            self, self.references, self.room, self.removed, self.events, about, rules, SkippedTime().monotonic
        )


async def test_nothing_is_removed_while_there_is_room() -> None:
    machine = Machine("a", "b")
    await machine.collector().collect()
    assert machine.names == ["a", "b"]
    assert machine.events.all == []


async def test_a_full_disk_loses_unused_images_until_the_low_threshold() -> None:
    machine = Machine("a", "b", "c", "d", "e")
    machine.other_mib = 40
    machine.used = {"docker.io/library/a:1"}
    await machine.collector().collect()
    assert machine.names == ["a", "c", "d", "e"]
    assert machine.forgotten == ["b"]
    assert machine.events.all == []


async def test_what_is_used_and_what_is_pinned_stays_and_too_little_freed_is_told() -> None:
    machine = Machine("a", "b", "c")
    machine.other_mib = 70
    machine.used, machine.pinned = {"a"}, {"b"}
    with pytest.raises(Permanent):
        await machine.collector().collect()
    assert machine.names == ["a", "b"]
    (told,) = machine.events.messages("FreeDiskSpaceFailed")
    assert told == (
        "Insufficient free disk space on the node's image filesystem (100% of 100.0 MiB used). "
        f"Failed to free sufficient space by deleting unused images (freed {10 * MIB} bytes). "
        "Investigate disk usage, as it could be used by active images, logs, volumes, or other data."
    )


async def test_one_that_cannot_be_removed_does_not_save_the_next() -> None:
    machine = Machine("a", "b")
    machine.other_mib = 70
    machine.refused = {"a"}
    with pytest.raises(Permanent, match="cannot remove a"):
        await machine.collector().collect()
    assert machine.names == ["a"]


async def test_an_image_that_a_pod_comes_to_want_meanwhile_is_not_removed() -> None:
    machine = Machine("a", "b", "c")
    machine.comes = {"a": "b"}
    assert await machine.collector().reclaim() == 20 * MIB
    assert machine.names == ["b"]


async def test_a_disk_without_a_size_is_told() -> None:
    machine = Machine("a")
    machine.capacity = 0
    with pytest.raises(Permanent):
        await machine.collector().collect()
    assert machine.events.messages("InvalidDiskCapacity") == ["invalid capacity 0 on image filesystem"]


@with_skipped_time
async def test_images_too_long_unused_go_and_the_rest_stays() -> None:
    time = SkippedTime()
    machine = Machine("a", "b")
    collector = machine.collector(ImageRules(85, 80, 0, 3600))
    await collector.collect()
    time.skip(3000)
    machine.used = {"a"}
    await collector.collect()
    time.skip(1000)
    machine.used = set()
    await collector.collect()
    assert machine.names == ["a"]


@with_skipped_time
async def test_only_what_fails_again_and_again_is_an_event() -> None:
    time = SkippedTime()
    machine = Machine("a")
    machine.away = True
    life = asyncio.ensure_future(machine.collector().run())
    try:
        await quiet()
        time.skip(0.1)
        await quiet()
        assert machine.events.all == []
        time.skip(EVERY_S)
        await quiet()
        assert machine.events.messages("ImageGCFailed") == ["away"]
        machine.away = False
        time.skip(EVERY_S)
        await quiet()
        machine.away = True
        time.skip(EVERY_S)
        await quiet()
        assert len(machine.events.all) == 1
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


@with_skipped_time
async def test_an_image_is_seen_from_the_start_and_may_go_after_its_least_time() -> None:
    time = SkippedTime()
    machine = Machine("a")
    machine.other_mib = 90
    life = asyncio.ensure_future(machine.collector(ImageRules(85, 80, 120)).run())
    try:
        await quiet()
        assert machine.names == ["a"]
        time.skip(121)
        await quiet()
        assert machine.names == []
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


@with_skipped_time
async def test_other_rules_are_gone_by_at_once_also_where_none_were_before() -> None:
    time = SkippedTime()
    machine = Machine("a", "b")
    collector = machine.collector(ImageRules(100, 80, 0))
    life = asyncio.ensure_future(collector.run())
    try:
        await quiet()
        time.skip(EVERY_S)
        await quiet()
        assert machine.names == ["a", "b"]
        collector.use(ImageRules(20, 10, 0))
        await quiet()
        assert machine.names == ["b"]
        collector.use(ImageRules(100, 80, 0))
        machine.names.append("c")
        await quiet()
        time.skip(EVERY_S)
        await quiet()
        assert machine.names == ["b", "c"]
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
