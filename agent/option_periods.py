"""The forms of settings for manifests by HTTP, for a node that shuts down, and for shares of the machine.

As in `agent.option_values`: a wrong one raises ValueError with the rest of a line. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent.config import Settings
from agent.errors import ConfigError
from agent.option_values import duration, items, text


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


def whole_seconds(value: object) -> float:
    """Zero, or at least one second: nothing shorter would be a time for pods."""
    if value in (0, "0", "0s"):
        return 0.0
    seconds = duration(value)
    if seconds < 1 or seconds != int(seconds):
        raise ValueError(f"{value!r} is neither 0 nor whole seconds")
    return seconds


def factor(value: object) -> float:
    """More than 0, at most 1."""
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else -1.0
    except ValueError:
        found = -1.0
    if not 0 < found <= 1:
        raise ValueError(f"{value!r} is not more than 0 and at most 1")
    return found


def cpus(value: object) -> str:
    """A list as the kernel writes it, 0-1,4; empty: none."""
    given = str(value) if isinstance(value, int) and not isinstance(value, bool) else text(value)
    cpu_list(given)
    return given


def cpu_list(given: str) -> frozenset[int]:
    """The CPUs of such a list. Raises ValueError."""
    found: set[int] = set()
    for part in given.split(",") if given else ():
        matched = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part.strip())
        if matched is None or (matched[2] and int(matched[2]) < int(matched[1])):
            raise ValueError(f"{given!r} is no list of CPUs: write 0-1,4")
        found |= set(range(int(matched[1]), int(matched[2] or matched[1]) + 1))
    return frozenset(found)


def check_reserved(settings: Settings) -> None:
    """Raises ConfigError where CPUs and cgroups are reserved at once."""
    if settings.reserved_cpus and (settings.system_reserved_cgroup or settings.kube_reserved_cgroup):
        raise ConfigError(
            "--reserved-cpus does not go together with --system-reserved-cgroup or --kube-reserved-cgroup"
        )


def check_shutdown(settings: Settings) -> None:
    """Raises ConfigError where the times of a shutdown don't go together."""
    whole_s, critical_s = settings.shutdown_grace_period, settings.shutdown_grace_period_critical_pods
    if settings.shutdown_grace_period_by_pod_priority and (whole_s or critical_s):
        raise ConfigError("--shutdown-grace-period-by-pod-priority stands instead of --shutdown-grace-period: use one")
    if critical_s > whole_s:
        raise ConfigError("--shutdown-grace-period-critical-pods is a part of --shutdown-grace-period: it is longer")


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
