"""Where a pod's log goes: the value of `edgelet.io/logs`.

In: a URL as somebody wrote it. Out: a `LogSink`, or ValueError with one line that names no password. Pure.
"""

from __future__ import annotations

import posixpath
from enum import StrEnum
from typing import ClassVar
from urllib.parse import SplitResult, unquote, urlsplit

from agent.discreet import Discreet
from agent.policies.policy import Policy

LONGEST_URL = 2048


class SinkKind(StrEnum):
    """The URL's scheme."""

    HTTP = "http"
    HTTPS = "https"
    SYSLOG_UDP = "syslog"
    SYSLOG_TCP = "syslog+tcp"
    SYSLOG_TLS = "syslog+tls"
    FILE = "file"


_PORTS = {
    SinkKind.HTTP: 80,
    SinkKind.HTTPS: 443,
    SinkKind.SYSLOG_UDP: 514,
    SinkKind.SYSLOG_TCP: 514,
    SinkKind.SYSLOG_TLS: 6514,
}
"""IANA's, RFC 5425 for TLS; over TCP there is no port of its own, and 514 is what servers listen on."""
_GZIP = "gzip"
_NONE = "none"


class LogSink(Discreet, frozen=True):
    hidden: ClassVar = frozenset({"text", "login"})
    text: str
    """As it was written; it may have a password in it."""
    kind: SinkKind
    host: str = ""
    port: int = 0
    target: str = ""
    """HTTP: path and query. File: the path, without `.`, `..` and doubled slashes."""
    login: tuple[str, str] | None = None
    gzip: bool = False
    """HTTP: bodies are compressed."""

    @property
    def address(self) -> str:
        """HOST:PORT, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """HTTP: what is asked for."""
        return f"{self.kind}://{self.address}{self.target}"

    @property
    def shown(self) -> str:
        """For messages and metrics: no password, no query."""
        where = self.target if self.kind is SinkKind.FILE else f"{self.address}{self.target.partition('?')[0]}"
        return f"{self.kind}://{where}"


def parse(value: str) -> LogSink | None:
    """`none` is None: the log goes nowhere. Raises ValueError."""
    return None if value.strip() == _NONE else parse_log_sink(value.strip())


def parse_log_sink(text: str) -> LogSink:
    """Raises ValueError."""
    if len(text) > LONGEST_URL:
        raise ValueError(f"a URL may have {LONGEST_URL} characters")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("not a URL: it has blanks, control or other characters that a URL must encode")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError("not a URL: the host or its port can't be read") from error
    try:
        kind = SinkKind(parts.scheme)
    except ValueError as error:
        raise ValueError(f"its scheme must be one of {', '.join(SinkKind)}") from error
    if kind is SinkKind.FILE:
        return _file(text, parts)
    if not parts.hostname:
        raise ValueError("it names no host")
    if port == 0:
        raise ValueError("port 0 is none")
    host, port = parts.hostname, port or _PORTS[kind]
    if kind not in (SinkKind.HTTP, SinkKind.HTTPS):
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
            raise ValueError("a syslog server has a host and a port, nothing else")
        return LogSink(text, kind, host, port)
    if parts.fragment not in ("", _GZIP):
        raise ValueError(f"after # there may be {_GZIP}, nothing else")
    login = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
    if login is not None and ":" in login[0]:
        raise ValueError("a user's name can have no colon in it")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return LogSink(text, kind, host, port, target, login, gzip=parts.fragment == _GZIP)


def _file(text: str, parts: SplitResult) -> LogSink:
    if parts.netloc or parts.query or parts.fragment:
        raise ValueError("a file is written file:///PATH")
    path = unquote(parts.path)
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError("a file is written file:///PATH, its path from the root on")
    if ".." in path.split("/") or not path.isprintable():
        raise ValueError("the path may have no .. and no control characters in it")
    return LogSink(text, SinkKind.FILE, target=posixpath.normpath("/" + path.lstrip("/")))


def writes_on_the_host(sink: object) -> bool:
    """A file of this machine is power over it."""
    return isinstance(sink, LogSink) and sink.kind is SinkKind.FILE


LOGS = Policy("edgelet.io/logs", "logs", parse, writes_on_the_host)
