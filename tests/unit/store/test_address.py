"""`--store`: what is taken, what is refused with one line, and that no password is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.config import Settings
from agent.store.address import Kind, StoreAddress, parse


def test_a_sqlite_path_is_absolute() -> None:
    assert parse("sqlite:///var/lib/x%20y.db") == StoreAddress(Kind.SQLITE, Path("/var/lib/x y.db"))


def test_a_redis_address_has_everything_that_a_client_needs() -> None:
    found = parse("rediss://edge:p%40ss@store.example:7000/2?prefix=site-1&ca=/ca.crt&cert=/c&key=/k")
    assert found.hosts == (("store.example", 7000),)
    assert (found.kind, found.tls, found.database, found.prefix) == (Kind.REDIS, True, 2, "site-1")
    assert (found.user, found.password) == ("edge", "p@ss")
    assert (found.ca, found.cert, found.key) == (Path("/ca.crt"), Path("/c"), Path("/k"))


def test_a_redis_password_may_stand_without_a_user() -> None:
    found = parse("redis://:secret@[::1]")
    assert (found.user, found.password, found.hosts) == ("", "secret", (("::1", 6379),))


def test_sentinel_has_several_hosts_and_a_service() -> None:
    found = parse("redis+sentinel://a,b:1234/edge-store/3")
    assert found.hosts == (("a", 26379), ("b", 1234))
    assert (found.master, found.database) == ("edge-store", 3)


def test_etcd_has_several_hosts() -> None:
    found = parse("etcds://edge@a,b:1?password-file=/run/secret")
    assert found.hosts == (("a", 2379), ("b", 1))
    assert found.password_file == Path("/run/secret")


def test_a_password_is_not_shown() -> None:
    found = parse("rediss://edge:hunter2@h/1")
    settings = Settings("edge-1", store="rediss://edge:hunter2@h/1")
    assert str(found) == "rediss://h:6379"
    assert "hunter2" not in f"{found!r}{settings!r}"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://hunter2@h", "must begin with one of sqlite://"),
        ("/var/lib/record.db", "must begin with"),
        ("sqlite://record.db", "three slashes"),
        ("sqlite:///", "three slashes"),
        ("redis://", "names no host"),
        ("redis://u:hunter2@h:port", "can't be read"),
        ("redis://u:hunter2@h:99999", "can't be read"),
        ("redis://a,b", "one host"),
        ("redis://h/name", "number of its database"),
        ("redis://h?ca=/x", "knows no 'ca'"),
        ("rediss://h?cert=/x", "cert and key go together"),
        ("redis://u:hunter2@h?password-file=/x", "one of them is enough"),
        ("redis://h?prefix=a/b", "prefix may have"),
        ("redis://h?prefix=", "has no value"),
        ("redis://h?prefix=a&prefix=b", "is there twice"),
        ("redis+sentinel://h", "name of the service"),
        ("etcd://h/path", "has no path"),
        ("etcd://:hunter2@h", "wants a user"),
        ("redis://u:hunter2#x@h", "%23"),
    ],
)
def test_a_wrong_address_is_refused_without_repeating_it(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        parse(url)
    assert "hunter2" not in str(caught.value)
