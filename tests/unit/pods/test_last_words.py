"""The termination message: from the container's file, else from the tail of its log."""

from __future__ import annotations

from pathlib import Path

from agent.cri._generated import api_pb2 as pb
from agent.model import labels
from agent.pods.last_words import last_words, log_tail

FILE = "/dev/termination-log"


def status(
    file: Path | None = None, log: Path | None = None, *, code: int = 1, policy: str = "FallbackToLogsOnError"
) -> pb.ContainerStatus:
    mounts = [pb.Mount(container_path="/data", host_path="/nowhere")]
    if file is not None:
        mounts.append(pb.Mount(container_path=FILE, host_path=str(file)))
    return pb.ContainerStatus(
        exit_code=code,
        mounts=mounts,
        log_path=str(log or ""),
        annotations={labels.CONTAINER_TERMINATION_PATH: FILE, labels.CONTAINER_TERMINATION_POLICY: policy},
    )


def log_of(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"2024-01-01T00:00:00.000000000Z stdout {line}\n" for line in lines))
    return path


async def test_the_file_speaks_whatever_the_exit_code(tmp_path: Path) -> None:
    file = tmp_path / "message"
    file.write_text("bye\n")
    for code in (0, 1):
        assert await last_words(status(file, code=code, policy="File")) == "bye\n"


async def test_the_end_of_a_long_file_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "message"
    file.write_text("a" * 5000 + "the end")
    words = await last_words(status(file))
    assert len(words) == 4096
    assert words.endswith("the end")


async def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    file = tmp_path / "message"
    file.write_bytes(b"\xffbye")
    assert await last_words(status(file)) == "\ufffdbye"


async def test_an_empty_or_missing_file_falls_back_to_the_log_of_a_failed_container(tmp_path: Path) -> None:
    log = log_of(tmp_path / "0.log", "F first", "F last")
    empty = tmp_path / "message"
    empty.touch()
    for file in (empty, tmp_path / "missing", None):
        assert await last_words(status(file, log)) == "first\nlast\n"


async def test_no_fall_back_after_success_or_where_the_policy_is_file(tmp_path: Path) -> None:
    log = log_of(tmp_path / "0.log", "F line")
    missing = tmp_path / "missing"
    assert await last_words(status(missing, log, code=0)) == ""
    assert await last_words(status(missing, log, policy="File")) == ""
    assert await last_words(status(None, log, policy="File")) == ""


async def test_of_a_host_program_the_end_of_the_output_stays_whatever_became_of_it(tmp_path: Path) -> None:
    log = log_of(tmp_path / "0.log", "F last")
    for code in (0, 1):
        ended = status(log=log, code=code, policy="File")
        ended.annotations[labels.CONTAINER_TERMINATION_PATH] = ""
        ended.annotations[labels.HOST] = "true"
        assert await last_words(ended) == "last\n"


async def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    words = await last_words(status(tmp_path))
    assert words == f"Error on reading termination log {tmp_path}: Is a directory"


def test_a_log_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    gone = tmp_path / "0.log"
    assert log_tail(str(gone)) == f"Error on reading container log {gone}: No such file or directory"


def test_partial_lines_are_joined_and_what_is_no_log_line_is_left_out(tmp_path: Path) -> None:
    log = log_of(tmp_path / "0.log", "P one ", "F line", "F ", "torn")
    assert log_tail(str(log)) == "one line\n\n"


def test_of_a_long_log_eighty_lines_and_two_kibibytes_are_kept(tmp_path: Path) -> None:
    log = log_of(tmp_path / "0.log", *(f"F {n}" for n in range(100_000)))
    assert log_tail(str(log)).splitlines() == [str(n) for n in range(99_920, 100_000)]
    log = log_of(tmp_path / "1.log", *(f"F {'x' * 99}" for _ in range(100)))
    assert len(log_tail(str(log))) == 2048
