"""The spool on a real disk, with files that are rotated, compressed and removed as a node does it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from agent.pods.log_shipping.container_log import LATE_S, LONGEST_BYTES, Cursor
from agent.pods.log_shipping.message import LogLine
from agent.pods.log_shipping.spool import BATCH_BYTES, FOLDER, PodRow, Spool
from agent.policies.log_sink import parse_log_sink

SINK = parse_log_sink("http://sink/")
OTHER = parse_log_sink("http://other/")
UID = "1-2-3"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Node:
    """Log files as a runtime and an agent leave them, and a spool."""

    def __init__(self, folder: Path, limit: int = 10**6) -> None:
        self.logs = folder
        self.clock = Clock()
        self.limit = limit
        self.spool = Spool(folder, "edge", limit, self.clock)

    def folder(self, uid: str = UID) -> Path:
        return self.logs / f"default_talks_{uid}"

    def write(self, *texts: str, container: str = "main", attempt: int = 0, uid: str = UID) -> Path:
        path = self.folder(uid) / container / f"{attempt}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.writelines(f"2026-03-01T12:00:00Z stdout F {text}\n" for text in texts)
        return path

    def rotate(self, path: Path, stamp: str) -> Path:
        self.spool.claim(path.parent.parent)
        return path.rename(path.with_name(f"{path.name}.{stamp}"))

    def remove(self, uid: str = UID) -> None:
        self.spool.claim(self.folder(uid))
        shutil.rmtree(self.folder(uid))
        self.spool.gone(uid)

    def follow(self, uid: str = UID) -> None:
        self.spool.follow(uid, "default", "talks", SINK)

    def take(self, *, confirm: bool = True) -> list[str]:
        """All that is to be sent now, with the sink taking it."""
        found: list[str] = []
        for _ in range(2):  # the second time the one file is over that the first found followed by another
            self.spool.look()
            self.clock.now += LATE_S
            while batch := self.spool.batch(SINK, msgspec.json.encode):
                found += [msgspec.json.decode(message, type=LogLine).log for message in batch.messages]
                self.spool.sent(batch.moves)
                if confirm:
                    self.spool.confirm(batch.moves)
            self.spool.look()
        return found

    def restart(self) -> None:
        rows = {uid: row for uid, row in self.spool.changed_rows().items() if row is not None}
        kept = {uid: msgspec.json.decode(msgspec.json.encode(row), type=PodRow) for uid, row in rows.items()}
        self.spool = Spool(self.logs, "edge", self.limit, self.clock)
        self.spool.load(kept)

    def links(self) -> list[Path]:
        return [path for path in (self.logs / FOLDER).rglob("*") if path.is_file()]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path)
    made.follow()
    return made


def test_every_container_is_sent_as_it_writes(node: Node) -> None:
    node.write("set up", container="init")
    node.write("a", "b")
    assert sorted(node.take()) == ["a", "b", "set up"]
    node.write("c")
    assert node.take() == ["c"]
    assert node.take() == []
    node.write("d", attempt=1)
    assert node.take() == ["d"]


def test_a_line_tells_where_it_is_from(node: Node) -> None:
    node.write("a")
    node.spool.look()
    batch = node.spool.batch(SINK, msgspec.json.encode)
    assert batch is not None
    (message,) = batch.messages
    assert msgspec.json.decode(message, type=LogLine) == LogLine(
        "2026-03-01T12:00:00Z", "stdout", "a", "default", "talks", UID, "main", "edge"
    )


def test_what_was_not_taken_comes_again(node: Node) -> None:
    node.write("a", "b")
    assert node.take(confirm=False) == ["a", "b"]
    assert node.take() == []
    node.spool.back(SINK)
    assert node.take() == ["a", "b"]


def test_rotation_while_the_sink_is_away_loses_nothing(node: Node) -> None:
    path = node.write("a")
    moved = [node.rotate(path, "20260301-120000")]
    node.write("b")
    moved.append(node.rotate(path, "20260301-120001"))
    moved[0].unlink()  # it was compressed
    node.write("c")
    node.spool.look()
    moved[1].unlink()
    assert node.take() == ["a", "b", "c"]
    assert len(node.links()) == 1  # the current file's


def test_a_line_that_comes_late_into_a_rotated_file_is_before_those_of_the_next(node: Node) -> None:
    path = node.write("a")
    moved = node.rotate(path, "20260301-120000")
    node.write("c")
    node.spool.look()
    batch = node.spool.batch(SINK, msgspec.json.encode)
    assert batch is not None
    assert len(batch.messages) == 1
    node.spool.sent(batch.moves)
    with moved.open("a") as file:
        file.write("2026-03-01T12:00:00Z stderr F b\n")
    assert node.take() == ["b", "c"]


def test_a_file_that_keeps_its_other_name_is_not_sent_twice(node: Node) -> None:
    path = node.write("a")
    moved = node.rotate(path, "20260301-120000")
    node.write("b")
    assert node.take() == ["a", "b"]
    node.restart()
    node.follow()
    assert node.take() == []
    moved.unlink()
    node.write("c")
    assert node.take() == ["c"]
    assert len(node.links()) == 1


def test_what_a_deleted_pod_has_not_sent_is_kept_and_then_gone_with_its_row(node: Node) -> None:
    node.write("a")
    assert node.take() == ["a"]
    node.write("b")
    node.write("c", attempt=1)
    node.remove()
    node.spool.look()
    assert node.spool.held_bytes > 0
    node.restart()
    assert node.take() == ["b", "c"]
    assert node.links() == []
    assert node.spool.is_idle
    assert node.spool.held_bytes == 0
    assert node.spool.changed_rows() == {UID: None}
    assert not (node.logs / FOLDER / UID).exists()


def test_a_pod_that_came_and_went_between_two_looks_is_sent(node: Node) -> None:
    node.write("a")
    node.remove()
    assert node.take() == ["a"]


def test_the_end_of_a_container_that_was_torn_is_sent_with_the_pods_end(node: Node) -> None:
    path = node.write("a")
    with path.open("a") as file:
        file.write("2026-03-01T12:00:00Z stdout P half")
    assert node.take() == ["a"]
    node.remove()
    assert node.take() == ["half"]
    assert node.spool.is_idle


def test_a_restart_goes_on_from_the_record(node: Node) -> None:
    node.write("a")
    assert node.take() == ["a"]
    node.write("b")
    node.restart()
    node.write("c")
    node.follow()
    assert node.take() == ["b", "c"]


def test_a_static_pod_that_comes_back_goes_on_after_what_waits(node: Node) -> None:
    node.write("a", attempt=1)
    node.remove()
    node.spool.look()
    node.follow()
    node.write("b", attempt=0)
    assert node.take() == ["a", "b"]
    node.write("c", attempt=0)
    assert node.take() == ["c"]


def test_a_file_that_is_emptied_in_place_is_read_from_its_beginning(node: Node) -> None:
    path = node.write("a", "b")
    assert node.take() == ["a", "b"]
    os.truncate(path, 0)
    node.write("c")
    assert node.take() == ["c"]


def test_a_full_spool_loses_its_oldest_file_and_says_how_many_lines(tmp_path: Path) -> None:
    node = Node(tmp_path, limit=3 * 4096)
    for number in range(5):
        uid = f"uid-{number}"
        node.follow(uid)
        path = node.write(*(f"{number}.{line}" for line in range(3)), uid=uid)
        os.utime(path, (number, number))
        node.remove(uid)
    lost = node.spool.look().lost
    assert [(loss.uid, loss.lines) for loss in lost] == [("uid-0", 3), ("uid-1", 3)]
    assert node.spool.held_bytes == 3 * 4096
    sent = node.take()
    assert [text for text in sent if "dropped" not in text] == [f"{n}.{line}" for n in (2, 3, 4) for line in range(3)]
    assert sum("3 lines of this log were dropped here" in text for text in sent) == 2
    assert node.spool.is_idle


def test_files_that_a_pod_still_has_take_nothing_of_the_spool(tmp_path: Path) -> None:
    node = Node(tmp_path, limit=0)
    node.follow()
    path = node.write("a")
    node.rotate(path, "20260301-120000")
    node.write("b")
    assert node.spool.look().lost == ()
    assert node.take() == ["a", "b"]


def test_a_line_in_thousands_of_parts_is_joined_and_an_endless_one_comes_in_pieces(node: Node) -> None:
    path = node.write()
    part = "x" * 1000
    with path.open("a") as file:
        file.writelines(f"2026-03-01T12:00:00Z stdout P {part}\n" for _ in range(300))
        file.write("2026-03-01T12:00:00Z stdout F end\n")
    assert node.take() == [part * 300 + "end"]
    with path.open("a") as file:
        file.writelines(f"2026-03-01T12:00:00Z stdout P {part}\n" for _ in range(2000))
        file.write("2026-03-01T12:00:00Z stdout F end\n")
    pieces = node.take()
    assert "".join(pieces) == part * 2000 + "end"
    assert len(pieces) > 1
    assert max(map(len, pieces)) <= LONGEST_BYTES


def test_a_batch_is_bounded_and_every_container_has_its_turn(node: Node) -> None:
    node.write(*("x" * 1000 for _ in range(1000)), container="chatty")
    node.write("quiet", container="quiet")
    node.spool.look()
    texts: list[str] = []
    for _ in range(2):
        batch = node.spool.batch(SINK, msgspec.json.encode)
        assert batch is not None
        assert sum(map(len, batch.messages)) <= BATCH_BYTES + 2000
        texts += [msgspec.json.decode(message, type=LogLine).log for message in batch.messages]
    assert "quiet" in texts


def test_another_sink_gets_what_was_not_sent_and_none_gives_it_up(node: Node) -> None:
    node.write("a")
    assert node.take() == ["a"]
    node.write("b")
    node.spool.follow(UID, "default", "talks", OTHER)
    assert node.take() == []
    assert node.spool.look().waiting == {OTHER}
    node.spool.leave(UID)
    assert node.links() == []
    assert node.spool.look().waiting == frozenset()
    assert node.folder().exists()


def test_links_that_the_record_knows_nothing_of_are_removed(node: Node) -> None:
    node.write("a")
    node.spool.look()
    fresh = Spool(node.logs, "edge", 10**6, node.clock)
    fresh.load({})
    assert node.links() == []


def test_the_row_of_a_pod_is_written_only_when_it_is_another(node: Node) -> None:
    node.write("a")
    node.take()
    rows = node.spool.changed_rows()
    row = rows[UID]
    assert row is not None
    assert row.containers["main"].cursor == Cursor(0, len("2026-03-01T12:00:00Z stdout F a\n"))
    node.spool.recorded(rows)
    assert node.spool.changed_rows() == {}
