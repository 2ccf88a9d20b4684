"""A `/containerLogs` query to LogOptions, judged as a kubelet judges it.

In: the query's parameters and the time. Out: LogOptions, or a Permanent whose reason says which HTTP status it means:
BadRequest for what cannot be read, Invalid for what can be read and makes no sense. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from agent.errors import Permanent
from agent.model.logs import LogOptions, LogStream

BAD_REQUEST = "BadRequest"
INVALID = "Invalid"

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")
_WHOLE = re.compile(r"[+-]?\d{1,19}")


def log_options(query: Mapping[str, str], unix_s: float) -> LogOptions:
    """Raises Permanent."""
    tail = _whole(query, "tailLines")
    if query.get("tail", "all") != "all":
        tail = _whole(query, "tail")  # the parameter's name before v1
    limit = _whole(query, "limitBytes")
    since_s = _whole(query, "sinceSeconds")
    since_ns = _time(query, "sinceTime")
    stream = query.get("stream", LogStream.ALL)
    if tail is not None and tail < 0:
        raise _invalid("tailLines", tail, "must be greater than or equal to 0")
    if limit is not None and limit < 1:
        raise _invalid("limitBytes", limit, "must be greater than 0")
    if since_s is not None and since_ns is not None:
        raise Permanent(INVALID, "at most one of `sinceTime` or `sinceSeconds` may be specified")
    if since_s is not None and since_s < 1:
        raise _invalid("sinceSeconds", since_s, "must be greater than 0")
    if stream not in tuple(LogStream):
        raise _invalid("stream", stream, f"must be one of {', '.join(LogStream)}")
    if stream != LogStream.ALL and tail is not None:
        raise Permanent(INVALID, "`tailLines` and specific `stream` are mutually exclusive for now")
    return LogOptions(
        follow=_flag(query, "follow"),
        previous=_flag(query, "previous"),
        timestamps=_flag(query, "timestamps"),
        tail_lines=tail,
        limit_bytes=limit,
        since_ns=since_ns if since_s is None else int(unix_s * 10**9) - since_s * 10**9,
        stream=LogStream(stream),
    )


def _invalid(name: str, value: int | str, why: str) -> Permanent:
    return Permanent(INVALID, f"{name}: Invalid value: {value}: {why}")


def _undecodable(name: str, value: str, kind: str) -> Permanent:
    return Permanent(BAD_REQUEST, f"Unable to decode query: {name}: {value!r} is not {kind}")


def _flag(query: Mapping[str, str], name: str) -> bool:
    """Present means yes, unless it says no (the API machinery's own reading)."""
    return name in query and query[name].lower() not in ("0", "false")


def _whole(query: Mapping[str, str], name: str) -> int | None:
    if (text := query.get(name)) is None:
        return None
    if _WHOLE.fullmatch(text) is None or not -(2**63) <= (number := int(text)) < 2**63:
        raise _undecodable(name, text, "a whole number")
    return number


def _time(query: Mapping[str, str], name: str) -> int | None:
    """Unix nanoseconds."""
    if not (text := query.get(name, "")):
        return None
    try:
        if (match := _RFC3339.fullmatch(text)) is None:
            raise ValueError(text)
        second, fraction, zone = match.groups(default="")
        return int(datetime.fromisoformat(second + zone).timestamp()) * 10**9 + int(fraction.ljust(9, "0"))
    except ValueError as error:
        raise _undecodable(name, text, "an RFC 3339 time") from error
