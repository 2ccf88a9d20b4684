"""A block of a log file in CRI's format to the container's own lines. Pure.

Lines that the runtime split (tag P) are joined. A reader may stop only where no line of either stream is half read:
such a place is *safe*, and an offset that is kept is always a safe one.
"""

from __future__ import annotations

import re

import msgspec

_LINE = re.compile(rb"^(\d[^ \n]*) (stdout|stderr) ([^ \n]+) ?([^\n]*)\n", re.MULTILINE)


class Line(msgspec.Struct, frozen=True):
    time: str
    """RFC 3339, as the runtime wrote it."""
    stream: str
    text: str
    """Without its end; what is not UTF-8 is replaced by U+FFFD."""
    end: int
    """Bytes of the block up to the last safe place at or before this line's end."""
    is_safe: bool
    """That place is this line's end."""


def parse(block: bytes, *, whole: bool) -> tuple[list[Line], int]:
    """The block's lines up to its last safe place, and how many bytes that is.

    `whole`: nothing follows, or a line is longer than anybody joins: all of it is given, however it ends.
    """
    if whole and not block.endswith(b"\n"):
        block, torn = block + b"\n", 1
    else:
        torn = 0
    lines: list[Line] = []
    parts: dict[bytes, list[bytes]] = {}
    safe, counted = 0, 0
    for match in _LINE.finditer(block):
        time, stream, tag, text = match.groups()
        if tag.split(b":", 1)[0] == b"P":
            parts.setdefault(stream, []).append(text)
            continue
        if stream in parts:
            text = b"".join((*parts.pop(stream), text))
        if not parts:
            safe = match.end()
        lines.append(
            Line(time.decode(errors="replace"), stream.decode(), text.decode(errors="replace"), safe, not parts)
        )
        if not parts:
            counted = len(lines)
    if whole:
        end = len(block) - torn
        stamp = lines[-1].time if lines else ""
        for stream, found in parts.items():
            time = stamp or _first_time(block)
            lines.append(Line(time, stream.decode(), b"".join(found).decode(errors="replace"), safe, False))
        if lines:
            last = lines[-1]
            lines[-1] = Line(last.time, last.stream, last.text, end, True)
        return lines, end
    return lines[:counted], safe


def count(block: bytes) -> int:
    """The lines that end in a block."""
    return sum(1 for match in _LINE.finditer(block) if match[3].split(b":", 1)[0] != b"P")


def _first_time(block: bytes) -> str:
    found = _LINE.search(block)
    return found[1].decode(errors="replace") if found else ""
