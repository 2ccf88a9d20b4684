"""One line of a log as sinks get it: newline-delimited JSON, or a syslog message. Pure."""

from __future__ import annotations

import re
import time

import msgspec

LOST_STREAM = "edgelet"
"""The stream of what the agent itself says in a log."""
_NIL = "-"
_SD_ID = "edgelet@32473"
"""RFC 5424 wants an enterprise number; 32473 is the one that RFC 5612 leaves for whoever has none."""
_DAEMON = 3
_ERROR, _WARNING, _INFORMATIONAL = 3, 4, 6
_SEVERITY = {"stderr": _ERROR, LOST_STREAM: _WARNING}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*(Z|[+-]\d\d:\d\d)")
_LONGEST_DATAGRAM = 8192


class LogLine(msgspec.Struct, frozen=True):
    """A JSON object of each line; the names are part of what users rely on."""

    time: str
    """RFC 3339, as the runtime wrote it; empty: now."""
    stream: str
    log: str
    namespace: str
    pod: str
    uid: str
    container: str
    node: str


def as_json(line: LogLine) -> bytes:
    if not line.time:
        line = msgspec.structs.replace(line, time=_now())
    return msgspec.json.encode(line) + b"\n"


def as_syslog(line: LogLine) -> bytes:
    """RFC 5424: container as APP-NAME, pod as PROCID, the rest as structured data."""
    priority = _DAEMON * 8 + _SEVERITY.get(line.stream, _INFORMATIONAL)
    stamp = _TIME.fullmatch(line.time or _now())
    when = "".join(part or "" for part in stamp.groups()) if stamp else _NIL
    data = " ".join(
        f'{name}="{value}"'
        for name, value in (
            ("namespace", line.namespace),
            ("pod", line.pod),
            ("uid", line.uid),
            ("container", line.container),
            ("stream", line.stream),
        )
    )
    head = f"<{priority}>1 {when} {line.node[:255]} {line.container[:48]} {line.pod[:128]} {_NIL} [{_SD_ID} {data}]"
    return f"{head} {line.log}".encode()


def as_counted(line: LogLine) -> bytes:
    """RFC 6587, octet counting: what goes over TCP and TLS."""
    message = as_syslog(line)
    return b"%d %b" % (len(message), message)


def as_datagram(line: LogLine) -> bytes:
    """RFC 5426; what is longer than servers take is cut."""
    return as_syslog(line)[:_LONGEST_DATAGRAM]


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
