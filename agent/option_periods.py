"""The forms of settings for manifests by HTTP and for a node that shuts down, as `agent.option_values` has the others."""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent.option_values import items, text


def http_url(value: object) -> str:
    """Empty means none."""
    given = text(value)
    if given and not re.match(r"https?://[^/\s]+", given):
        raise ValueError("not an http:// or https:// URL")
    return given


def headers(value: object) -> dict[str, str]:
    """`a:hello,b:world`, or a mapping to a value or a list of them."""
    if isinstance(value, Mapping):
        lists = {key: one if isinstance(one, list) else [one] for key, one in value.items()}
        pairs = [(text(key), ", ".join(map(text, several))) for key, several in lists.items()]
    else:
        pairs = [(name, word) for item in items(value) for name, _, word in [text(item).partition(":")]]
    found = {name.strip(): word.strip() for name, word in pairs}
    for name, word in found.items():
        if not re.fullmatch(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+", name) or not word or not word.isprintable():
            # The value may be a secret: it is not shown.
            raise ValueError(f"header {name!r} is not written NAME:VALUE")
    return found


def priorities(value: object) -> tuple[tuple[int, int], ...]:
    """`0=20,2000000000=10`, or a list of {priority, shutdownGracePeriodSeconds}: seconds by priority, lowest first."""
    found: dict[int, int] = {}
    for item in items(value):
        match item:
            case {"priority": int(priority), "shutdownGracePeriodSeconds": int(seconds), **rest} if not rest:
                pass
            case str() if matched := re.fullmatch(r"(-?\d{1,10})=(\d{1,6})s?", item):
                priority, seconds = int(matched[1]), int(matched[2])
            case _:
                raise ValueError(f"{item!r} is not written PRIORITY=SECONDS")
        if priority in found:
            raise ValueError(f"priority {priority} is there twice")
        if seconds < 0:
            raise ValueError(f"{item!r}: less than no time")
        found[priority] = seconds
    return tuple(sorted(found.items()))
