"""How the settings of prefetched images are written, and what they are.

In: what a flag, the settings file or an annotation says. Out: names of images, bytes a second, minutes of a day.
ValueError is one line. Pure.
"""

from __future__ import annotations

import re

from agent.errors import Permanent
from agent.model import quantity
from agent.option import Option
from agent.option_values import items, optional_path, text
from agent.pods.images import parse_image

LEAST_RATE = 1000
_RATE = re.compile(r"(.*?)(?:B(?:/s)?|/s)?")
_WINDOW = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})")


def image_names(value: object) -> tuple[str, ...]:
    """Images as pods name them; each once, in their order."""
    found: dict[str, None] = {}
    for item in items(value):
        found[image_name(text(item))] = None
    return tuple(found)


def image_name(word: str) -> str:
    try:
        parse_image(word)
    except Permanent as error:
        raise ValueError(f"{word!r} is not the name of an image: {str(error).rpartition(': ')[2]}") from None
    return word


def rate(value: object) -> int:
    """Bytes a second, as a quantity that may end in B or B/s: 2MB, 500k, 1.5MiB/s; 0: as fast as it goes."""
    word = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else text(value)
    matched = _RATE.fullmatch(word.strip())
    found = quantity.ceil_units(matched[1] if matched else word)
    if found != 0 and found < LEAST_RATE:
        raise ValueError(f"{value!r} is neither 0 nor at least {LEAST_RATE} bytes a second")
    return found


def windows(value: object) -> tuple[tuple[int, int], ...]:
    """Times of day, 22:00-06:00: pairs of minutes since midnight. The first may be the later one: past midnight."""
    found = []
    for item in items(value):
        matched = _WINDOW.fullmatch(text(item).strip())
        begin, end = (_minutes(*matched.group(1, 2)), _minutes(*matched.group(3, 4))) if matched else (-1, -1)
        if begin < 0 or end < 0 or begin == end or begin == 24 * 60:
            raise ValueError(f"{item!r} is no time of day: write 22:00-06:00")
        found.append((begin, end))
    return tuple(found)


def _minutes(hour: str, minute: str) -> int:
    """24:00 is the end of a day; less than 0 where there is no such time."""
    total = int(hour) * 60 + int(minute)
    return total if int(minute) < 60 and total <= 24 * 60 else -1


PREFETCH: tuple[Option, ...] = (
    Option(
        "prefetch", "prefetch", image_names, "IMAGE,...",
        "images that are pulled before a pod needs them, and kept", many=True, default="none",
    ),
    Option(
        "prefetch_rate", "prefetch-rate", rate, "BYTES",
        "how fast they are pulled on the whole, as 2MB (a second); 0: as fast as it goes", default="0",
    ),
    Option(
        "prefetch_window", "prefetch-window", windows, "HH:MM-HH:MM,...",
        "the times of day, by the machine's own time zone, at which they are pulled", many=True, default="always",
    ),
    Option(
        "image_bundles", "image-bundles", optional_path, "DIR",
        "a folder whose *.tar, *.tar.zst and *.tar.gz are imported as images, and kept", default="ROOT_DIR/images",
    ),
)  # fmt: skip
