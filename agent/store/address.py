"""Where the record is, from the words of `--store`: a SQLite file, or a Redis or etcd server beside a local copy.

In: a URL, and how to read a password that is not in it. Out: a typed address that shows no password. A wrong URL raises
ValueError with the rest of a line that starts with the setting's name; it never repeats the URL, which may hold one.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import ClassVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from agent.discreet import Discreet

PASSWORD_ENV = "EDGELET_STORE_PASSWORD"  # noqa: S105  a variable's name
DEFAULT_PREFIX = "edgelet"
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_COMMON = frozenset({"prefix", "password-file"})
_TLS = frozenset({"ca", "cert", "key"})


class Kind(StrEnum):
    SQLITE = "sqlite"
    REDIS = "redis"
    SENTINEL = "redis+sentinel"
    ETCD = "etcd"


_SCHEMES = {
    "sqlite": (Kind.SQLITE, False, 0),
    "redis": (Kind.REDIS, False, 6379),
    "rediss": (Kind.REDIS, True, 6379),
    "redis+sentinel": (Kind.SENTINEL, False, 26379),
    "rediss+sentinel": (Kind.SENTINEL, True, 26379),
    "etcd": (Kind.ETCD, False, 2379),
    "etcds": (Kind.ETCD, True, 2379),
}


class StoreAddress(Discreet, frozen=True):
    hidden: ClassVar = frozenset({"password"})
    kind: Kind
    path: Path | None = None
    """The file of a SQLite record."""
    hosts: tuple[tuple[str, int], ...] = ()
    tls: bool = False
    ca: Path | None = None
    """Who signs the server's certificate; None: the machine's trust store."""
    cert: Path | None = None
    key: Path | None = None
    user: str = ""
    password: str = ""
    password_file: Path | None = None
    master: str = ""
    """Sentinel's name of the service."""
    database: int = 0
    prefix: str = DEFAULT_PREFIX

    @property
    def remote(self) -> bool:
        return self.kind is not Kind.SQLITE

    def __str__(self) -> str:
        """Without the password."""
        if self.path is not None:
            return f"sqlite://{self.path}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        kind, plus, sentinel = self.kind.partition("+")
        return f"{kind}{'s' if self.tls else ''}{plus}{sentinel}://{hosts}"


def parse(url: str) -> StoreAddress:
    """Raises ValueError."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from error
    if parts.scheme not in _SCHEMES or "://" not in url:
        raise ValueError(f"must begin with one of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
    kind, tls, port = _SCHEMES[parts.scheme]
    if parts.fragment:
        raise ValueError("has a '#': write it as %23")
    if kind is Kind.SQLITE:
        if parts.netloc or parts.query or not parts.path.strip("/"):
            raise ValueError("a SQLite record is sqlite:///absolute/path, with three slashes")
        return StoreAddress(kind, Path(unquote(parts.path)))
    words = _words(parts, _COMMON | (_TLS if tls else frozenset()))
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    if password and "password-file" in words:
        raise ValueError("has a password and a password-file: one of them is enough")
    master, database = _redis_path(kind, parts.path)
    cert, key = (Path(words[name]) if name in words else None for name in ("cert", "key"))
    if (cert is None) is not (key is None):
        raise ValueError("cert and key go together: one of them is missing")
    if kind is Kind.ETCD and password and not user:
        raise ValueError("etcd wants a user with the password: etcds://USER:PASSWORD@HOST")
    prefix = words.get("prefix", DEFAULT_PREFIX)
    if not _PREFIX.fullmatch(prefix):
        raise ValueError("prefix may have letters, digits, '.', '_' and '-' only")
    servers = _hosts(hosts, port)
    if kind is Kind.REDIS and len(servers) > 1:
        raise ValueError("a redis:// address has one host; several are redis+sentinel:// with the service's name")
    return StoreAddress(
        kind,
        hosts=servers,
        tls=tls,
        ca=Path(words["ca"]) if "ca" in words else None,
        cert=cert,
        key=key,
        user=unquote(user),
        password=unquote(password),
        password_file=Path(words["password-file"]) if "password-file" in words else None,
        master=master,
        database=database,
        prefix=prefix,
    )


def _words(parts: SplitResult, known: frozenset[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            raise ValueError(f"{parts.scheme}:// knows no {name!r}, only {', '.join(sorted(known))}")
        if not value or name in found:
            raise ValueError(f"{name} {'is there twice' if value else 'has no value'}")
        found[name] = value
    return found


def _hosts(netloc: str, port: int) -> tuple[tuple[str, int], ...]:
    found: list[tuple[str, int]] = []
    for one in netloc.split(","):
        try:
            parts = urlsplit(f"//{one}")
            host, given = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError("a host or a port can't be read: HOST:PORT, several with commas between") from error
        if not host:
            raise ValueError("names no host")
        found.append((host, port if given is None else given))
    return tuple(found)


def _redis_path(kind: Kind, path: str) -> tuple[str, int]:
    """(Sentinel's service, number of the database)."""
    steps = [unquote(step) for step in path.split("/") if step]
    if kind is Kind.ETCD:
        if steps:
            raise ValueError("an etcd address has no path: use ?prefix=")
        return "", 0
    master = ""
    if kind is Kind.SENTINEL:
        if not steps:
            raise ValueError("Sentinel wants the name of the service: redis+sentinel://HOST/NAME")
        master = steps.pop(0)
    if len(steps) > 1 or (steps and not steps[0].isdigit()):
        raise ValueError("the path of a Redis address is the number of its database")
    return master, int(steps[0]) if steps else 0
