"""Decide what becomes of a container's log files when its current one is full. Pure.

In: the names in the log's folder, the most files it may have, and the time. Out: what goes, what is compressed and the
name that the current file gets. Names are the kubelet's: `0.log.20240131-235959`, later `….gz`, on the way `….tmp`.
Files of other names are nobody's business here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

TMP, GZ = ".tmp", ".gz"
_STAMP = "%Y%m%d-%H%M%S"
_SUFFIX = re.compile(r"\.(\d{8}-\d{6})(\.gz|\.tmp)?")


class Rotation(msgspec.Struct, frozen=True):
    remove: tuple[str, ...]
    """First: what a broken-off rotation left, and the oldest, so that the new one has its place."""
    move_to: str
    """What the current file is called from now on."""
    compress: tuple[str, ...]
    """Oldest first. Never the one that was just moved: shippers, and whoever follows the log, still read it."""


def plan_rotation(current: str, names: Iterable[str], most: int, now: datetime) -> Rotation:
    """`most` counts the current file and the compressed ones too; `now` is the time as names have it."""
    rotated, unfinished = _sorted(current, names)
    excess = max(0, len(rotated) - max(0, most - 2))
    kept = rotated[excess:]
    return Rotation(
        remove=(*unfinished, *rotated[:excess]),
        move_to=f"{current}.{_stamp(current, rotated, now).strftime(_STAMP)}",
        compress=tuple(name for name in kept if not name.endswith(GZ)),
    )


def unfinished(current: str, names: Iterable[str]) -> tuple[str, ...]:
    """What a rotation that was broken off left behind: half an archive, or the text of a whole one."""
    return _sorted(current, names)[1]


def excess(current: str, names: Iterable[str], most: int) -> tuple[str, ...]:
    """What is too much beside the current file, the oldest first, and what was left unfinished."""
    rotated, left = _sorted(current, names)
    return (*left, *rotated[: max(0, len(rotated) - max(0, most - 1))])


def _sorted(current: str, names: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """(rotated files, oldest first; unfinished ones) of this log."""
    own = sorted(name for name in names if name.startswith(current) and _SUFFIX.fullmatch(name[len(current) :]))
    there = set(own)
    left = tuple(name for name in own if name.endswith(TMP) or f"{name}{GZ}" in there)
    return [name for name in own if name not in left], left


def _stamp(current: str, rotated: list[str], now: datetime) -> datetime:
    """Later than every other: a clock that was set back, or a second rotation within a second, must not cost a file."""
    if not rotated:
        return now
    found = _SUFFIX.fullmatch(rotated[-1][len(current) :])
    assert found is not None
    try:
        newest = datetime.strptime(found[1], _STAMP)
    except ValueError:  # digits that are no date
        return now
    return max(now, newest + timedelta(seconds=1))
