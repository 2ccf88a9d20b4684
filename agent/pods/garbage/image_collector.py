"""Remove images that nothing uses when their file system is full, when they are too old, or when somebody asks.

In: what the runtime has, and what the record names. Out: removed images, events of the Node where that was not enough.
When an image was seen and used is known from the agent's start on, as the kubelet knows it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

import msgspec
from loguru import logger

from agent.clock import sleep_unless
from agent.cri._generated import api_pb2
from agent.errors import EdgeletError, Permanent
from agent.model.objects import ObjectReference
from agent.own_metrics import IMAGES_COLLECTED
from agent.pods.garbage.image_plan import (
    HeldImage,
    ImageAge,
    ImageRules,
    aged,
    bytes_to_free,
    too_old,
    unused,
    used,
    used_percent,
)
from agent.pods.ports import Events

EVERY_S = 300.0
INVALID_CAPACITY = "invalid capacity 0 on image filesystem"


class Room(msgspec.Struct, frozen=True):
    """Of the file system that images are on, in bytes."""

    capacity: int
    available: int


class HeldImages(Protocol):
    async def list_images(self) -> Sequence[api_pb2.Image]: ...
    async def remove_image(self, image: api_pb2.ImageSpec) -> None: ...


class ImageCollector:
    def __init__(
        self,
        images: HeldImages,
        references: Callable[[], Awaitable[frozenset[str]]],
        room: Callable[[], Awaitable[Room]],
        removed: Callable[[str], Awaitable[None]],
        events: Events,
        about: ObjectReference,
        rules: ImageRules,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`references`: IDs and names of all images that are used or wanted now. `removed` hears the ID of each image
        that went. `about`: the Node. All may raise Retryable or Permanent: then nothing is removed.
        """
        self._images = images
        self._references = references
        self._room = room
        self._removed = removed
        self._events = events
        self._about = about
        self._rules = rules
        self._changed = asyncio.Event()
        self._monotonic = monotonic
        self._ages: dict[str, ImageAge] = {}
        self._turn = asyncio.Lock()
        self._began = monotonic()

    async def run(self) -> None:
        """As long as the agent lives. Nothing may go before it has lain here for the least time that is set."""
        await self._see()
        await self._rest(min(self._rules.min_age_s, EVERY_S))
        failed = ""
        while True:
            if self._rules.is_on:
                try:
                    await self.collect()
                    failed = ""
                except EdgeletError as error:
                    logger.warning("images are not collected: {}", error)
                    if failed:
                        # Once may be a disk or a runtime that is not up yet.
                        self._say("ImageGCFailed", str(error))
                    failed = str(error)
            await self._rest(EVERY_S)

    def use(self, rules: ImageRules) -> None:
        """Go by other rules from now on, and look at once what they ask for."""
        if rules != self._rules:
            self._rules = rules
            self._changed.set()

    async def collect(self) -> None:
        """One look, and what follows. Raises Retryable, Permanent where it could not free what it was to free."""
        async with self._turn:
            now = self._monotonic()
            free = await self._look(now)
            old = too_old(free, self._ages, self._rules, now)
            await self._remove(old, math.inf, "age")
            room = await self._room()
            if room.capacity <= 0:
                self._say("InvalidDiskCapacity", INVALID_CAPACITY)
                raise Permanent("InvalidDiskCapacity", INVALID_CAPACITY)
            wanted = bytes_to_free(room.capacity, room.available, self._rules)
            if self._rules.high_percent >= 100 or wanted <= 0:
                return
            gone = {image.id for image in old}
            freed = await self._remove((image for image in free if image.id not in gone), wanted, "space")
            if freed < wanted:
                message = _not_enough(used_percent(room.capacity, room.available), room.capacity, freed)
                self._say("FreeDiskSpaceFailed", message)
                raise Permanent("FreeDiskSpaceFailed", message)

    async def reclaim(self) -> int:
        """Remove every image that may go, however much room there is; the bytes. Raises Retryable, Permanent."""
        async with self._turn:
            return await self._remove(await self._look(self._monotonic()), math.inf, "space")

    async def _rest(self, seconds: float) -> None:
        await sleep_unless(self._changed, asyncio.sleep(seconds))
        self._changed.clear()

    async def _see(self) -> None:
        """Date what is here."""
        try:
            async with self._turn:
                await self._look(self._monotonic())
        except EdgeletError as error:
            logger.debug("images are not seen yet: {}", error)

    async def _look(self, now: float) -> tuple[HeldImage, ...]:
        held = [_held(image) for image in await self._images.list_images()]
        in_use = used(held, await self._references())
        self._ages = aged(self._ages, held, in_use, now)
        return unused(held, in_use, self._ages, self._rules, now)

    async def _remove(self, images: Iterable[HeldImage], wanted: float, reason: str) -> int:
        """Until `wanted` bytes are freed. One that can't be removed holds up no other; raises what the last said."""
        freed = 0
        trouble: EdgeletError | None = None
        for image in images:
            if freed >= wanted:
                break
            if used([image], await self._references()):
                continue  # a pod came meanwhile
            logger.info("image {} ({}) is removed: {} bytes", _name(image), image.id, image.size_bytes)
            try:
                await self._images.remove_image(api_pb2.ImageSpec(image=image.id))
                await self._removed(image.id)
            except EdgeletError as error:
                trouble = error
                continue
            IMAGES_COLLECTED.inc(reason)
            self._ages.pop(image.id, None)
            freed += image.size_bytes
        if trouble is not None:
            raise trouble
        return freed

    def _say(self, reason: str, message: str) -> None:
        self._events.record(self._about, "Warning", reason, message)


def _held(image: api_pb2.Image) -> HeldImage:
    names = frozenset((*image.repo_tags, *image.repo_digests))
    return HeldImage(image.id, names, image.size, image.pinned)


def _name(image: HeldImage) -> str:
    return min(image.names, default="without a name", key=len)


def _not_enough(percent: int, capacity: int, freed: int) -> str:
    return (
        f"Insufficient free disk space on the node's image filesystem ({percent}% of {_size(capacity)} used). "
        f"Failed to free sufficient space by deleting unused images (freed {freed} bytes). "
        "Investigate disk usage, as it could be used by active images, logs, volumes, or other data."
    )


def _size(count: int) -> str:
    for unit, bytes_ in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= bytes_:
            return f"{count / bytes_:.1f} {unit}"
    return f"{count} B"
