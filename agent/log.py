"""The log: loguru to stderr, one record a line, as text or as JSON.

In: records of our own and, through the standard `logging`, warnings of libraries. Out: lines that name the pod and the
container they are about. Values of variables never get into a traceback here, and what looks like a credential is
masked: logs leave the machine.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, TextIO

from loguru import logger

if TYPE_CHECKING:
    from loguru import Message, Record

_CREDENTIAL = re.compile(r"(?i:\b(bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}|\beyJ[\w-]+\.[\w-]+\.[\w-]*")
_FIRST = ("pod", "container")
"""Fields that stand first in a text line."""


def configure(level: str = "info", form: str = "text", stream: TextIO | None = None) -> None:
    """Send everything from now on to `stream` (stderr); `form` is text or json. May be called again."""
    out = stream or sys.stderr
    render = _json if form == "json" else _text

    def write(message: Message) -> None:
        out.write(render(message.record) + "\n")
        out.flush()

    logger.remove()
    # diagnose would print the values of variables, and with them secrets.
    logger.add(write, level=level.upper(), format="{message}", backtrace=False, diagnose=False, catch=True)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.WARNING, force=True)
    logging.captureWarnings(True)


class _ToLoguru(logging.Handler):
    """What libraries log becomes a record of ours, with the library's name bound."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname if record.levelname in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL") else "WARNING"
        logger.bind(library=record.name).opt(exception=record.exc_info).log(level, "{}", record.getMessage())


def _text(record: Record) -> str:
    when = record["time"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    fields = "".join(f" {name}={_quoted(value)}" for name, value in _ordered(record["extra"]).items())
    message = record["message"].replace("\n", "\\n")
    return _masked(f"{when} {record['level'].name:<7} {message}{fields}" + _traceback(record, "\n"))


def _json(record: Record) -> str:
    line: dict[str, object] = {
        "time": record["time"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "level": record["level"].name.lower(),
        "message": _masked(record["message"]),
    }
    for name, value in _ordered(record["extra"]).items():
        plain = value if isinstance(value, int | float | bool | None) else _masked(str(value))
        line[name if name not in line else f"field_{name}"] = plain
    if trace := _traceback(record):
        line["exception"] = _masked(trace)
    return json.dumps(line, ensure_ascii=False)


def _ordered(extra: Mapping[str, object]) -> dict[str, object]:
    first = {name: extra[name] for name in _FIRST if name in extra}
    return first | {name: value for name, value in extra.items() if name not in first}


def _quoted(value: object) -> str:
    word = str(value)
    return word if word and not re.search(r"[\s\"=]", word) else json.dumps(word, ensure_ascii=False)


def _traceback(record: Record, before: str = "") -> str:
    caught = record["exception"]
    if caught is None or caught.type is None:
        return ""
    return before + "".join(traceback.format_exception(caught.type, caught.value, caught.traceback)).rstrip()


def _masked(line: str) -> str:
    return _CREDENTIAL.sub(lambda found: f"{found[1] or ''} [masked]".lstrip(), line)
