from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from loguru import logger

from agent import log


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    logger.remove()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_text_line_names_pod_and_container_first(out: io.StringIO) -> None:
    log.configure("info", "text", out)
    logger.bind(attempt=2, container="web", pod="default/a b").info("started {}", "it")
    (line,) = out.getvalue().splitlines()
    assert line.endswith(' INFO    started it pod="default/a b" container=web attempt=2')
    assert line[10] == "T"
    assert line[23] == "Z"


def test_a_json_line_is_one_object_with_every_bound_field(out: io.StringIO) -> None:
    log.configure("info", "json", out)
    logger.bind(pod="default/a", container="web", exit_code=3, message="mine").warning("two\nlines")
    record = json.loads(out.getvalue())
    assert out.getvalue().count("\n") == 1
    assert record["level"] == "warning"
    assert record["message"] == "two\nlines"
    assert (record["pod"], record["container"], record["exit_code"]) == ("default/a", "web", 3)
    assert record["field_message"] == "mine"
    assert record["time"].endswith("Z")


def test_a_message_cannot_forge_a_second_line(out: io.StringIO) -> None:
    log.configure("info", "text", out)
    logger.info("a\n2026-01-01 ERROR forged")
    assert out.getvalue().count("\n") == 1


def test_below_the_level_nothing_is_written(out: io.StringIO) -> None:
    log.configure("warning", "text", out)
    logger.info("quiet")
    assert out.getvalue() == ""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_shows_no_values_and_credentials_are_masked(out: io.StringIO, form: str) -> None:
    log.configure("info", form, out)
    password = "hunter" + "2"
    try:
        raise ValueError(f"refused: {len(password)}")
    except ValueError:
        logger.exception("call failed with Authorization: Bearer abcdefghijklmnop")
    logger.bind(header="Basic dXNlcjpwYXNzd29yZA==").info("eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl")
    written = out.getvalue()
    assert "ValueError: refused: 7" in written
    assert "Traceback" in written
    for secret in (password, "abcdefghijklmnop", "dXNlcjpwYXNzd29yZA", "eyJhbGciOi"):
        assert secret not in written
    assert written.count("[masked]") == 3


def test_libraries_are_heard_from_warning_on(out: io.StringIO) -> None:
    log.configure("debug", "json", out)
    logging.getLogger("aiohttp.client").info("chatter")
    logging.getLogger("aiohttp.client").warning("slow %s {braces}", "peer")
    record = json.loads(out.getvalue())
    assert record["message"] == "slow peer {braces}"
    assert record["library"] == "aiohttp.client"


def test_configuring_again_replaces_the_first(out: io.StringIO) -> None:
    log.configure("info", "json", out)
    log.configure("info", "text", out)
    logger.info("once")
    assert out.getvalue().count("once") == 1
