"""The value of edgelet.io/logs."""

from __future__ import annotations

import pytest

from agent.policies.log_sink import SinkKind, parse, parse_log_sink, writes_on_the_host
from agent.policies.policy import Fault


def test_an_http_sink_has_its_path_and_query_and_shows_neither_password_nor_query() -> None:
    sink = parse_log_sink("https://me:s%40cret@logs.example:8443/in?token=abc#gzip")
    assert sink.url == "https://logs.example:8443/in?token=abc"
    assert sink.login == ("me", "s@cret")
    assert sink.gzip
    assert sink.shown == "https://logs.example:8443/in"
    assert "cret" not in repr(sink)


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("http://logs", SinkKind.HTTP, "logs:80"),
        ("syslog://10.0.0.1", SinkKind.SYSLOG_UDP, "10.0.0.1:514"),
        ("syslog+tcp://[fd00::1]:1514", SinkKind.SYSLOG_TCP, "[fd00::1]:1514"),
        ("syslog+tls://logs/", SinkKind.SYSLOG_TLS, "logs:6514"),
    ],
)
def test_a_server_has_the_port_of_its_kind_unless_it_names_one(text: str, kind: SinkKind, address: str) -> None:
    sink = parse_log_sink(text)
    assert (sink.kind, sink.address) == (kind, address)
    assert not writes_on_the_host(sink)


def test_a_file_is_one_path_however_it_is_written() -> None:
    sink = parse_log_sink("file:////var/log/./all%20pods.log")
    assert sink.target == "/var/log/all pods.log"
    assert sink.shown == "file:///var/log/all pods.log"
    assert writes_on_the_host(sink)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "logs.example:80",
        "ftp://logs/",
        "http://",
        "http://:80/",
        "http://logs:0/",
        "http://logs:70000/",
        "http://lo gs/",
        "http://logs/#br",
        "http://logs/\n",
        "http://lögs/",
        "http://a%3Ab:c@logs/",
        "http://[fd00::1/",
        "syslog://logs/facility",
        "syslog+tcp://me:pw@logs",
        "file://host/path",
        "file:relative",
        "file:///var/log/",
        "file:///var/../etc/passwd",
        "file:///var/%0Alog",
        "http://logs/" + "a" * 2048,
    ],
)
def test_what_is_no_sink_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        parse_log_sink(text)


def test_a_refusal_names_no_password() -> None:
    with pytest.raises(ValueError, match="scheme") as refused:
        parse_log_sink("htp://me:secret@logs")
    assert "secret" not in str(refused.value)


def test_what_is_said_of_a_wrong_value_has_no_login_in_it() -> None:
    said = str(Fault("edgelet.io/logs", "htp://me:p@ss/word@logs/in", "no"))
    assert said == "annotation edgelet.io/logs='htp://logs/in' does not count: no"


def test_none_switches_a_default_off() -> None:
    assert parse("none") is None
    assert parse(" http://logs ") == parse_log_sink("http://logs")
