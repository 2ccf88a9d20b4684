import asyncio
import os
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from agent.errors import NotFound, Permanent
from agent.model.logs import LogOptions, LogStream
from agent.model.status import ContainerStatus, Phase, PodStatus, Running, State, Terminated, Waiting
from agent.pods import logs
from agent.pods.folder_watch import FolderWatch, Happened
from agent.pods.logs import logged_container, read_log
from tests.fakes.waiting import PATIENCE_S


def line(text: str, second: int = 5, fraction: str = "000000001", stream: str = "stdout", tag: str = "F") -> str:
    return f"2026-01-02T03:04:{second:02}.{fraction}Z {stream} {tag} {text}\n"


def write(path: Path, *lines: str) -> Path:
    path.write_bytes("".join(lines).encode())
    return path


def stopped() -> bool:
    return False


async def shown(path: Path, running: Callable[[], bool] = stopped, **options: object) -> bytes:
    got = b""
    async with asyncio.timeout(PATIENCE_S), aclosing(read_log(path, LogOptions(**options), running)) as blocks:  # type: ignore[arg-type]
        async for block in blocks:
            got += block
    return got


async def test_the_text_of_every_line_is_shown_byte_for_byte(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_bytes(
        b"2026-01-02T03:04:05.1Z stdout F plain\n"
        b"2026-01-02T03:04:05.1Z stderr F \n"
        b"2026-01-02T03:04:05.1+02:00 stdout F  lead \t\r\xff\x00\n"
        b"2026-01-02T03:04:05Z stdout F 2026-01-02T03:04:05Z stdout F nested\n"
    )
    assert await shown(log) == b"plain\n\n lead \t\r\xff\x00\n2026-01-02T03:04:05Z stdout F nested\n"


async def test_partial_lines_are_joined_and_carry_one_timestamp(tmp_path: Path) -> None:
    log = write(tmp_path / "0.log", line("a", tag="P"), line("b", tag="P:x"), line("c"), line("d", tag="F:x"))
    assert await shown(log) == b"abc\nd\n"
    stamp = b"2026-01-02T03:04:05.000000001Z "
    assert await shown(log, timestamps=True) == stamp + b"abc\n" + stamp + b"d\n"


async def test_timestamps_are_written_with_nine_digits_and_their_own_zone(tmp_path: Path) -> None:
    log = write(
        tmp_path / "0.log",
        "2026-01-02T03:04:05.12+02:00 stdout F x\n",
        "2026-01-02T03:04:05Z stdout F y\n",
    )
    assert await shown(log, timestamps=True) == (
        b"2026-01-02T03:04:05.120000000+02:00 x\n2026-01-02T03:04:05.000000000Z y\n"
    )


async def test_lines_that_are_not_the_runtimes_are_left_out(tmp_path: Path) -> None:
    log = write(tmp_path / "0.log", line("a"), "\0\0\0\n", "torn by a power cut\n", line("b"))
    assert await shown(log) == b"a\nb\n"
    assert await shown(log, since_ns=1) == b"a\nb\n"


async def test_a_last_line_without_its_end_is_shown_as_it_is(tmp_path: Path) -> None:
    log = write(tmp_path / "0.log", line("a"), line("b")[:-1])
    assert await shown(log) == b"a\nb"


async def test_since_keeps_lines_of_that_nanosecond_and_later(tmp_path: Path) -> None:
    log = write(
        tmp_path / "0.log",
        line("old", fraction="1"),
        line("just before", fraction="199999999"),
        line("at", fraction="2"),
        "2026-01-02T05:04:05.3+02:00 stdout F elsewhere\n",
        "2026-13-02T05:04:05.3Z stdout F no such month\n",
        line("clock went back", second=4),
    )
    at_ns = 1767323045_200000000
    assert await shown(log, since_ns=at_ns) == b"at\nelsewhere\n"


async def test_one_stream_can_be_chosen(tmp_path: Path) -> None:
    log = write(tmp_path / "0.log", line("o", tag="P"), line("e", stream="stderr"), line("o2"))
    assert await shown(log, stream=LogStream.STDOUT) == b"oo2\n"
    assert await shown(log, stream=LogStream.STDERR, timestamps=True) == b"2026-01-02T03:04:05.000000001Z e\n"


@pytest.mark.parametrize(("limit", "expected"), [(1, b"a"), (4, b"abc\n"), (6, b"abc\nde"), (99, b"abc\ndef\n")])
async def test_limit_bytes_cuts_inside_a_line(tmp_path: Path, limit: int, expected: bytes) -> None:
    log = write(tmp_path / "0.log", line("abc"), line("def"))
    assert await shown(log, limit_bytes=limit) == expected


async def test_limit_bytes_counts_timestamps_and_ends_a_follower(tmp_path: Path) -> None:
    log = write(tmp_path / "0.log", line("abc"), line("def"))
    assert (
        await shown(log, lambda: True, limit_bytes=33, timestamps=True, follow=True)
        == (b"2026-01-02T03:04:05.000000001Z abc"[:33])
    )


@pytest.mark.parametrize("block", [1, 7, 64, 4096])
@pytest.mark.parametrize("wanted", [0, 1, 2, 3, 4, 9])
@pytest.mark.parametrize("torn", ["", "2026-01-02T03"])
async def test_tail_counts_the_containers_lines_whatever_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, wanted: int, torn: str
) -> None:
    monkeypatch.setattr(logs, "BLOCK_BYTES", block)
    log = write(tmp_path / "0.log", line("one"), line("tw", tag="P"), line("o"), line(""), line("four"), torn)
    lines = [b"one\n", b"two\n", b"\n", b"four\n"]
    assert await shown(log, tail_lines=wanted) == b"".join(lines[max(0, len(lines) - wanted) :])


async def test_a_partial_last_line_counts_as_a_line_of_the_tail(tmp_path: Path) -> None:
    log = write(tmp_path / "0.log", line("one"), line("two"), line("thr", tag="P"))
    assert await shown(log, tail_lines=1) == b"thr"
    assert await shown(log, tail_lines=2) == b"two\nthr"


async def test_the_tail_of_a_long_log_is_read_from_its_end(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    with log.open("wb") as file:
        file.truncate(20 * 2**30)  # a hole of 20 GiB: reading it from the start would take minutes
        file.seek(0, os.SEEK_END)
        file.write(("\n" + line("a") + line("b") + line("c")).encode())
    assert await shown(log, tail_lines=2) == b"b\nc\n"


async def test_a_long_stretch_that_is_no_line_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BLOCK_BYTES", 64)
    monkeypatch.setattr(logs, "LONGEST_LINE_BYTES", 1024)
    log = write(tmp_path / "0.log", line("a"), line("b"), "\0" * 9000 + "\n", line("c"))
    assert await shown(log, tail_lines=2) == b"b\nc\n"
    assert await shown(log) == b"a\nb\nc\n"


async def test_a_file_moved_away_is_followed_until_the_next_one_is_there(tmp_path: Path) -> None:
    log = write(tmp_path / "0.log", line("a"))
    async with Follower(log) as follower:
        await follower.until(b"a\n")
        log.rename(tmp_path / "0.log.1")
        await asyncio.sleep(0.05)
        write(log, line("b"))
        await follower.until(b"a\nb\n")


async def test_an_empty_log_shows_nothing(tmp_path: Path) -> None:
    log = write(tmp_path / "0.log")
    assert await shown(log) == b""
    assert await shown(log, tail_lines=5) == b""


async def test_a_line_longer_than_a_block_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BLOCK_BYTES", 64)
    log = write(tmp_path / "0.log", line("x" * 5000), line("y"))
    assert await shown(log) == b"x" * 5000 + b"\ny\n"


async def test_no_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"0\.log does not exist"):
        await shown(tmp_path / "0.log")


class Follower:
    """Follows a log in a task; `until` waits for what it must have shown."""

    def __init__(self, path: Path, **options: object) -> None:
        self.running = True
        self.got = b""
        self.opened = asyncio.Event()
        self.path = path
        self.options = LogOptions(follow=True, **options)  # type: ignore[arg-type]

    async def __aenter__(self) -> "Follower":
        self.task = asyncio.ensure_future(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])

    async def _follow(self) -> None:
        async with aclosing(read_log(self.path, self.options, lambda: self.running)) as blocks:
            async for block in blocks:
                self.opened.set()
                self.got += block

    async def until(self, expected: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.got != expected:
                assert not self.task.done()
                await asyncio.sleep(0.005)


async def test_a_follower_shows_what_is_there_and_then_each_write(tmp_path: Path) -> None:
    log = write(tmp_path / "0.log", line("a"))
    async with Follower(log) as follower:
        await follower.until(b"a\n")
        with log.open("a") as file:
            file.write(line("b"))
            file.flush()
            await follower.until(b"a\nb\n")
            file.write(line("c")[:-3])
            file.flush()
            await asyncio.sleep(0.05)
            assert follower.got == b"a\nb\n"
            file.write(line("c")[-3:])
            file.flush()
            await follower.until(b"a\nb\nc\n")


async def test_a_follower_starts_at_the_tail(tmp_path: Path) -> None:
    log = write(tmp_path / "0.log", line("a"), line("b"))
    async with Follower(log, tail_lines=0) as follower:
        await follower.opened.wait()
        with log.open("a") as file:
            file.write(line("c"))
        await follower.until(b"c\n")


async def test_a_follower_ends_soon_after_the_container_with_all_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.pods.logs.LOOK_S", 3600)  # a closed file is looked at much sooner
    log = write(tmp_path / "0.log", line("a"))
    async with Follower(log) as follower:
        file = log.open("a")
        await follower.until(b"a\n")
        file.write(line("last words"))
        file.close()  # as the runtime does at the end
        follower.running = False
        async with asyncio.timeout(PATIENCE_S):
            await follower.task
        assert follower.got == b"a\nlast words\n"


async def test_a_follower_of_an_ended_container_reads_it_all_and_ends(tmp_path: Path) -> None:
    assert await shown(write(tmp_path / "0.log", line("a")), follow=True) == b"a\n"


async def test_a_follower_goes_on_into_the_next_file_and_misses_nothing_of_the_old_one(tmp_path: Path) -> None:
    log = write(tmp_path / "0.log", line("a"))
    async with Follower(log) as follower:
        await follower.until(b"a\n")
        with log.open("a") as old:
            log.rename(tmp_path / "0.log.20260102-030405")
            old.write(line("b"))
            old.flush()
            new = log.open("a")  # the runtime has the new file open, its writers not yet
            old.write(line("c"))
            old.flush()
            await follower.until(b"a\nb\nc\n")
            old.write(line("d"))
        new.write(line("e"))
        new.close()
        await follower.until(b"a\nb\nc\nd\ne\n")


async def test_what_comes_late_into_the_rotated_file_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.pods.logs.LATE_S", 3600)  # a slow machine does not end the wait before the late line
    log = write(tmp_path / "0.log", line("a"))
    async with Follower(log) as follower:
        await follower.until(b"a\n")
        with log.open("a") as old:
            log.rename(tmp_path / "0.log.20260102-030405")
            write(log, line("c"))  # standard output is in the next file already, standard error not yet
            await asyncio.sleep(0.05)
            old.write(line("b"))
        await follower.until(b"a\nb\n")
        monkeypatch.setattr("agent.pods.logs.LATE_S", 0.0)
        with log.open("a") as new:
            new.write(line("d"))
        await follower.until(b"a\nb\nc\nd\n")


async def test_a_follower_passes_over_no_file_when_rotation_is_faster_than_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.pods.logs.LATE_S", 3600)
    log = write(tmp_path / "0.log", line("a"))
    async with Follower(log) as follower:
        await follower.until(b"a\n")
        for number, text in enumerate("bcd"):
            log.rename(tmp_path / f"0.log.{9 - number}")
            write(log, line(text))
            os.utime(log, ns=(0, time.time_ns() + number + 1))  # a coarse clock does not tell them apart
        await asyncio.sleep(0.05)
        monkeypatch.setattr("agent.pods.logs.LATE_S", 0.0)
        with log.open("a") as file:
            file.write(line("e"))
        await follower.until(b"a\nb\nc\nd\ne\n")


async def test_an_ended_containers_rotated_log_is_read_to_its_end(tmp_path: Path) -> None:
    log = write(tmp_path / "0.log", line("a"))
    async with Follower(log) as follower:
        await follower.until(b"a\n")
        log.rename(tmp_path / "0.log.20260102-030405")
        write(log, line("b"))
        follower.running = False
        async with asyncio.timeout(PATIENCE_S):
            await follower.task
        assert follower.got == b"a\nb\n"


async def test_a_follower_begins_again_in_a_file_that_was_emptied(tmp_path: Path) -> None:
    log = write(tmp_path / "0.log", line("a"), line("b"))
    async with Follower(log) as follower:
        await follower.until(b"a\nb\n")
        write(log, line("c"))
        await follower.until(b"a\nb\nc\n")


async def test_a_follower_that_is_closed_leaves_no_open_file(tmp_path: Path) -> None:
    log = write(tmp_path / "0.log", line("a"))
    before = len(os.listdir("/proc/self/fd"))
    async with Follower(log) as follower:
        await follower.until(b"a\n")
        assert len(os.listdir("/proc/self/fd")) > before
    assert len(os.listdir("/proc/self/fd")) == before


async def test_without_inotify_a_folder_is_looked_at_in_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(nonblocking: bool) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("agent.pods.folder_watch.INotify", exhausted)
    with FolderWatch(tmp_path, 0.01) as watch:
        assert await watch.changes(None) == {"": Happened.UNKNOWN}
        tmp_path.rmdir()
        assert await watch.changes(5) == {"": Happened.FOLDER_WENT}
    with pytest.raises(FileNotFoundError):
        FolderWatch(tmp_path, 0.01)


async def test_changes_name_the_file_and_what_happened(tmp_path: Path) -> None:
    with FolderWatch(tmp_path, 1) as watch:
        assert await watch.changes(0) == {}
        (tmp_path / "a").write_text("x")
        (tmp_path / "a").rename(tmp_path / "b")
        found = await watch.changes(1)
        assert found["a"] & Happened.CLOSED
        assert found["a"] & Happened.WENT
        assert found["b"] & Happened.MOVED_IN


def status(state: State, last: State | None = None, **other: object) -> PodStatus:
    found = ContainerStatus(name="c", state=state, lastState=last or State(), **other)  # type: ignore[arg-type]
    return PodStatus(phase=Phase.RUNNING, containerStatuses=(found,))


RUNNING = State(running=Running())
ENDED = State(terminated=Terminated(containerID="containerd://old"))


def test_the_running_container_is_meant_and_on_request_its_predecessor() -> None:
    both = status(RUNNING, ENDED, containerID="containerd://new")
    assert logged_container("p", "c", both, previous=False) == "new"
    assert logged_container("p", "c", both, previous=True) == "old"


def test_between_two_runs_the_last_one_is_meant() -> None:
    waiting = State(waiting=Waiting(reason="CrashLoopBackOff"))
    assert logged_container("p", "c", status(waiting, ENDED), previous=False) == "old"
    assert logged_container("p", "c", status(ENDED), previous=False) == "old"
    assert logged_container("p", "c", status(State(terminated=Terminated()), ENDED), previous=False) == "old"


@pytest.mark.parametrize(
    ("pod_status", "previous", "message"),
    [
        (status(State(waiting=Waiting("ContainerCreating"))), False, "is waiting to start: ContainerCreating"),
        (status(State(waiting=Waiting("ErrImagePull"))), False, "is waiting to start: image can't be pulled"),
        (
            status(State(waiting=Waiting("ImagePullBackOff"))),
            False,
            "is waiting to start: trying and failing to pull image",
        ),
        (status(State()), False, "is waiting to start - no logs yet"),
        (status(State(terminated=Terminated())), False, "is terminated"),
        (PodStatus(phase=Phase.PENDING), False, "is not available"),
    ],
)
def test_a_container_without_a_log_is_refused_in_the_kubelets_words(
    pod_status: PodStatus, previous: bool, message: str
) -> None:
    with pytest.raises(Permanent) as refused:
        logged_container("p", "c", pod_status, previous)
    assert str(refused.value) == f'container "c" in pod "p" {message}'


def test_no_predecessor_is_refused_in_the_kubelets_words() -> None:
    with pytest.raises(Permanent) as refused:
        logged_container("p", "c", status(RUNNING, containerID="containerd://x"), previous=True)
    assert str(refused.value) == 'previous terminated container "c" in pod "p" not found'
