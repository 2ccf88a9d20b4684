"""Decide which images may go, in which order, and how much has to be freed. Pure.

In: the images that the runtime has, what is used of them, when each was first seen and last used, and how full their
file system is. Out: images, the longest unused first. An image that a container of anybody's is made of, that a pod of
the record names, that is pinned, or that sandboxes are made of is never among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

import msgspec
from msgspec.structs import replace

from agent.errors import Permanent
from agent.model.pod import Pod
from agent.pods.image_rewrites import Rewrites
from agent.pods.images import parse_image


class ImageRules(msgspec.Struct, frozen=True):
    """The kubelet's settings: percents of the file system, and seconds."""

    high_percent: int = 85
    low_percent: int = 80
    min_age_s: float = 120.0
    max_age_s: float = 0.0
    """0: an image may stay unused for ever while there is room."""

    @property
    def is_on(self) -> bool:
        return self.high_percent < 100 or self.max_age_s > 0


class HeldImage(msgspec.Struct, frozen=True):
    id: str
    names: frozenset[str] = frozenset()
    """Its tags and digests, as the runtime has them."""
    size_bytes: int = 0
    pinned: bool = False


class ImageAge(msgspec.Struct, frozen=True):
    """Monotonic seconds. Both begin with the agent: what was before it, nobody knows."""

    first_seen: float
    last_used: float | None = None


def wanted_images(pod: Pod, rewrites: Rewrites) -> frozenset[str]:
    """Every image that the pod names, its image volumes' too, by all the names that the runtime may have it under."""
    named = [container.image for container in pod.spec.all_containers]
    named += [volume.image.reference for volume in pod.spec.volumes if volume.image is not None]
    return frozenset(name for image in named for name in held_names(image, rewrites))


def held_names(image: str, rewrites: Rewrites) -> tuple[str, ...]:
    """All names that the runtime may have it under: as it was written, in full, and as it is pulled."""
    try:
        return (*full_names(image), *full_names(rewrites.name(image)))
    except Permanent:
        return full_names(image)  # nothing that could be here under another name


def full_names(image: str) -> tuple[str, ...]:
    """As it was written and in full: `busybox` is docker.io/library/busybox:latest."""
    try:
        name = parse_image(image)
    except Permanent:
        return (image,)  # an image's ID, or nothing that could be here
    if name.digest:
        return (image, str(name), f"{name.repository}@{name.digest}")
    return (image, str(name))


def used(images: Iterable[HeldImage], references: Set[str]) -> frozenset[str]:
    """The IDs of those that one of `references` (IDs, tags, digests) means."""
    return frozenset(image.id for image in images if image.id in references or image.names & references)


def aged(ages: dict[str, ImageAge], images: Iterable[HeldImage], in_use: Set[str], now: float) -> dict[str, ImageAge]:
    """The ages after one more look; of images that are gone none is kept."""
    found = {image.id: ages.get(image.id, ImageAge(now)) for image in images}
    return {id_: replace(age, last_used=now) if id_ in in_use else age for id_, age in found.items()}


def unused(
    images: Iterable[HeldImage], in_use: Set[str], ages: dict[str, ImageAge], rules: ImageRules, now: float
) -> tuple[HeldImage, ...]:
    """Those that may go now, the longest unused first, and of those the longest here."""
    free = [
        image
        for image in images
        if image.id not in in_use and not image.pinned and now - ages[image.id].first_seen >= rules.min_age_s
    ]
    return tuple(sorted(free, key=lambda image: (_last_used(ages[image.id]), ages[image.id].first_seen, image.id)))


def too_old(
    free: Iterable[HeldImage], ages: dict[str, ImageAge], rules: ImageRules, now: float
) -> tuple[HeldImage, ...]:
    """Of those that may go, what was unused for longer than it may be. Time before the agent's start does not count."""
    if rules.max_age_s <= 0:
        return ()
    return tuple(
        image for image in free if now - max(_last_used(ages[image.id]), ages[image.id].first_seen) > rules.max_age_s
    )


def bytes_to_free(capacity: int, available: int, rules: ImageRules) -> int:
    """0 while less is in use than the high threshold says; else as much as leads down to the low one."""
    if used_percent(capacity, available) < rules.high_percent:
        return 0
    return capacity * (100 - rules.low_percent) // 100 - min(available, capacity)


def used_percent(capacity: int, available: int) -> int:
    """`capacity` is more than 0."""
    return 100 - min(available, capacity) * 100 // capacity


def _last_used(age: ImageAge) -> float:
    return float("-inf") if age.last_used is None else age.last_used
