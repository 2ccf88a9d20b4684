"""What the Node says of images that are pulled ahead and of bundles: the text of its annotation. Pure.

In: where each image and each bundle is. Out: compact JSON of a bounded size.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar

import msgspec

ANNOTATION = "edgelet.io/prefetch-status"
LISTED = 100
"""Images and bundles that are told one by one."""
MESSAGE_CHARS = 300


class State(StrEnum):
    PENDING = "Pending"
    PULLING = "Pulling"
    PAUSED = "Paused"
    FAILED = "Failed"
    """It is tried again."""
    PRESENT = "Present"
    IMPORTING = "Importing"
    IMPORTED = "Imported"
    REFUSED = "Refused"


class ImageStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    image: str
    state: State
    bytes: int = 0
    """What is here, compressed."""
    total: int = 0
    """0: not known yet."""
    message: str = ""


class BundleStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    file: str
    state: State
    images: tuple[str, ...] = ()
    message: str = ""


class _Told(msgspec.Struct, omit_defaults=True):
    images: tuple[ImageStatus, ...] = ()
    bundles: tuple[BundleStatus, ...] = ()
    more: int = 0
    """So many are not listed."""


_One = TypeVar("_One", ImageStatus, BundleStatus)


def told(images: Iterable[ImageStatus], bundles: Iterable[BundleStatus]) -> str | None:
    """None: there is nothing to tell. What is not well is listed first where there is too much."""
    shown_images, more_images = _first(tuple(images))
    shown_bundles, more_bundles = _first(tuple(bundles))
    if not shown_images and not shown_bundles:
        return None
    return msgspec.json.encode(_Told(shown_images, shown_bundles, more_images + more_bundles)).decode()


def _first(listed: tuple[_One, ...]) -> tuple[tuple[_One, ...], int]:
    settled = (State.PRESENT, State.IMPORTED)
    if len(listed) > LISTED:
        listed = tuple(sorted(listed, key=lambda one: one.state in settled))
    return listed[:LISTED], max(0, len(listed) - LISTED)


def shortened(message: str) -> str:
    return message if len(message) <= MESSAGE_CHARS else message[: MESSAGE_CHARS - 1] + "…"
