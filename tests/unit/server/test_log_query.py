import pytest

from agent.errors import Permanent
from agent.model.logs import LogOptions, LogStream
from agent.server.log_query import log_options

NOW = 1_767_323_045.5


def test_an_empty_query_asks_for_all_of_the_log() -> None:
    assert log_options({}, NOW) == LogOptions()


def test_every_parameter_is_read() -> None:
    query = {
        "follow": "true",
        "previous": "1",
        "timestamps": "true",
        "tailLines": "10",
        "limitBytes": "100",
        "sinceSeconds": "5",
        "stream": "All",
        "insecureSkipTLSVerifyBackend": "true",
    }
    assert log_options(query, NOW) == LogOptions(
        follow=True,
        previous=True,
        timestamps=True,
        tail_lines=10,
        limit_bytes=100,
        since_ns=1_767_323_040_500_000_000,
        stream=LogStream.ALL,
    )
    assert log_options({"stream": "Stderr"}, NOW).stream is LogStream.STDERR


@pytest.mark.parametrize(
    ("text", "meant"), [("", True), ("yes", True), ("false", False), ("False", False), ("0", False)]
)
def test_a_flag_that_is_there_means_yes_unless_it_says_no(text: str, meant: bool) -> None:
    assert log_options({"follow": text}, NOW).follow is meant


@pytest.mark.parametrize(
    ("text", "since_ns"),
    [
        ("2026-01-02T03:04:05Z", 1_767_323_045_000_000_000),
        ("2026-01-02T03:04:05.000000001Z", 1_767_323_045_000_000_001),
        ("2026-01-02T05:04:05.5+02:00", 1_767_323_045_500_000_000),
        ("", None),
    ],
)
def test_since_time_is_exact_to_the_nanosecond(text: str, since_ns: int | None) -> None:
    assert log_options({"sinceTime": text}, NOW).since_ns == since_ns


def test_the_old_name_of_tail_lines_is_understood() -> None:
    assert log_options({"tail": "3"}, NOW).tail_lines == 3
    assert log_options({"tail": "all"}, NOW).tail_lines is None


@pytest.mark.parametrize(
    "query",
    [
        {"tailLines": "ten"},
        {"tailLines": ""},
        {"limitBytes": "1.5"},
        {"sinceSeconds": str(2**63)},
        {"sinceTime": "yesterday"},
        {"sinceTime": "2026-13-02T03:04:05Z"},
    ],
)
def test_what_cannot_be_read_is_a_bad_request_that_names_it(query: dict[str, str]) -> None:
    with pytest.raises(Permanent, match=f"Unable to decode query: {next(iter(query))}: ") as refused:
        log_options(query, NOW)
    assert refused.value.reason == "BadRequest"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"tailLines": "-1"}, "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ({"limitBytes": "0"}, "limitBytes: Invalid value: 0: must be greater than 0"),
        ({"sinceSeconds": "0"}, "sinceSeconds: Invalid value: 0: must be greater than 0"),
        ({"stream": "stdin"}, "stream: Invalid value: stdin: must be one of All, Stdout, Stderr"),
        (
            {"sinceSeconds": "1", "sinceTime": "2026-01-02T03:04:05Z"},
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
        (
            {"stream": "Stdout", "tailLines": "1"},
            "`tailLines` and specific `stream` are mutually exclusive for now",
        ),
    ],
)
def test_what_makes_no_sense_is_invalid(query: dict[str, str], message: str) -> None:
    with pytest.raises(Permanent) as refused:
        log_options(query, NOW)
    assert (refused.value.reason, str(refused.value)) == ("Invalid", message)
