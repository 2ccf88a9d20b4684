"""The SQLite record: durable, revisioned, watched, and never stopped by a broken file."""

import asyncio
import os
import sqlite3
import zlib
from pathlib import Path

import pytest

from agent.errors import ConfigError, Permanent, Retryable
from agent.store import schema
from agent.store.base import Delete, Put
from agent.store.sqlite import SqliteStore


async def test_what_was_put_is_read_after_reopening(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "record.db")
    revision = await store.put("pods/a", b"one")
    await store.close()

    store = await SqliteStore.open(tmp_path / "record.db")
    row = await store.get("pods/a")
    assert row is not None
    assert (row.value, row.revision) == (b"one", revision)
    assert await store.put("pods/b", b"two") == revision + 1
    await store.close()


async def test_list_returns_only_the_prefix_in_order(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "record.db")
    await store.batch([Put("pods/b", b"2"), Put("pods/a", b"1"), Put("podsx", b"3"), Put("node", b"4")])
    assert [row.key for row in await store.list("pods/")] == ["pods/a", "pods/b"]
    await store.close()


async def test_a_batch_is_one_revision_and_deletes_what_it_names(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "record.db")
    first = await store.batch([Put("a", b"1"), Put("b", b"2")])
    second = await store.batch([Delete("a"), Put("b", b"3")])
    assert second == first + 1
    assert await store.get("a") is None
    await store.close()


async def test_writes_that_arrive_together_are_all_kept(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "record.db")
    revisions = await asyncio.gather(*(store.put(f"k/{i:03}", str(i).encode()) for i in range(100)))
    assert len(set(revisions)) == 100
    assert len(await store.list("k/")) == 100
    await store.close()


async def test_a_row_with_a_wrong_checksum_is_set_aside_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    store = await SqliteStore.open(path)
    await store.batch([Put("pods/a", b"good"), Put("pods/b", b"soon bad")])
    await store.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE rows SET value = x'00' WHERE key = 'pods/b'")
    db.commit()
    db.close()

    store = await SqliteStore.open(path)
    assert [row.key for row in await store.list("pods/")] == ["pods/a"]
    assert await store.get("pods/b") is None
    await store.close()


@pytest.mark.parametrize("damage", [b"garbage" * 1000, b"SQLite format 3\x00" + b"\xff" * 4096])
async def test_an_unreadable_file_is_set_aside_and_a_new_record_started(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "record.db"
    path.write_bytes(damage)
    store = await SqliteStore.open(path)
    await store.put("a", b"1")
    assert await store.get("a") is not None
    await store.close()
    (aside,) = tmp_path.glob("record.db.corrupt-*")
    assert aside.read_bytes() == damage


async def test_a_record_of_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="newer edgelet"):
        await SqliteStore.open(path)


async def test_a_file_of_the_first_schema_keeps_its_rows_and_can_shrink_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    db = sqlite3.connect(path)
    for statement in schema.STEPS[0]:
        db.execute(statement)
    value = b"what was written by the first version"
    db.execute("INSERT INTO rows VALUES ('pods/a', ?, 7, ?)", (value, zlib.crc32(value, zlib.crc32(b"pods/a"))))
    db.execute("UPDATE counter SET revision = 7")
    db.execute("PRAGMA user_version = 1")
    db.commit()
    db.close()

    store = await SqliteStore.open(path)
    row = await store.get("pods/a")
    assert row is not None
    assert row.value == value
    assert await store.put("pods/b", b"2") == 8
    await store.close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    assert db.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    db.close()


async def test_what_can_be_read_of_a_broken_file_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    store = await SqliteStore.open(path)
    for number in range(200):
        await store.put(f"pods/{number:03}", b"x" * 500)
    revision = await store.revision()
    await store.close()
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2 // 4096 * 4096
    damaged[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(damaged)

    store = await SqliteStore.open(path)
    rows = await store.list("pods/")
    assert 150 < len(rows) < 200
    assert all(row.value == b"x" * 500 for row in rows)
    assert revision - 50 < await store.put("pods/new", b"1") <= revision + 1
    await store.close()


async def test_a_file_that_breaks_while_it_is_open_is_made_anew_and_written(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    store = await SqliteStore.open(path)
    for number in range(500):
        await store.put(f"pods/{number:03}", b"x" * 2000)
    await store.scrub()
    with path.open("r+b") as file:
        file.truncate(3 * 4096)
    assert await store.verify() != ()
    await store.put("pods/after", b"1")
    assert await store.get("pods/after") is not None
    assert store.rebuilt >= 1
    assert await store.verify() == ()
    await store.close()


async def test_a_file_that_is_cut_short_is_noticed_by_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    store = await SqliteStore.open(path)
    await store.batch([Put(f"pods/{number:03}", b"x" * 2000) for number in range(20)])
    os.truncate(tmp_path / "record.db-wal", 5000)
    await store.put("pods/after", b"1")
    assert store.rebuilt == 1
    await store.close()
    store = await SqliteStore.open(path)
    assert await store.get("pods/after") is not None
    assert await store.verify() == ()
    await store.close()


async def test_a_look_at_the_file_sees_what_became_of_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    store = await SqliteStore.open(path)
    await store.put("pods/a", b"the value as it was written")
    await store.scrub()
    path.write_bytes(path.read_bytes().replace(b"as it was written", b"as it has become."))
    assert await store.verify() == ("row pods/a was corrupt and was dropped",)
    assert await store.verify() == ()
    await store.close()


async def test_a_file_that_was_removed_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    store = await SqliteStore.open(path)
    await store.put("a", b"1")
    for left in tmp_path.glob("record.db*"):
        if not left.name.endswith(".lock"):
            left.unlink()
    await store.put("b", b"2")
    assert store.rebuilt == 1
    await store.close()
    store = await SqliteStore.open(path)
    assert [row.key for row in await store.list("")] == ["b"]
    await store.close()


async def test_a_record_has_one_owner(tmp_path: Path) -> None:
    first = await SqliteStore.open(tmp_path / "record.db")
    with pytest.raises(Permanent, match=f"in use by another edgelet .pid {os.getpid()}"):
        await SqliteStore.open(tmp_path / "record.db", wait_s=0)
    await first.close()
    second = await SqliteStore.open(tmp_path / "record.db", wait_s=0)
    await second.close()


async def test_the_file_shrinks_after_much_was_deleted(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "record.db")
    await store.batch([Put(f"k/{number}", b"x" * 20_000) for number in range(500)])
    full = store.size_bytes
    await store.batch([Delete(f"k/{number}") for number in range(500)])
    await store.compact()
    await store.close()
    assert (tmp_path / "record.db").stat().st_size < full / 4


async def test_what_was_deleted_can_not_be_found_in_the_file(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "record.db")
    await store.put("a", b"very secret words")
    await store.delete("a")
    await store.scrub()
    assert all(b"very secret" not in path.read_bytes() for path in tmp_path.iterdir())
    await store.close()


async def test_the_outbox_has_the_newest_of_each_key_in_order_until_it_is_sent(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "record.db", outbox=True)
    await store.put("a", b"1")
    await store.put("b", b"1")
    await store.put("a", b"2")
    await store.delete("c")
    waiting = await store.unsent(10)
    assert [(one.key, one.value) for one in waiting] == [("b", b"1"), ("a", b"2"), ("c", None)]
    await store.put("a", b"3")
    await store.sent(waiting)
    assert [(one.key, one.value) for one in await store.unsent(10)] == [("a", b"3")]
    assert await store.acknowledged() == waiting[-1].revision
    await store.close()


async def test_a_folder_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="root-dir"):
        await SqliteStore.open(tmp_path / "file" / "record.db")


async def test_a_closed_record_takes_no_more_writes(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "record.db")
    await store.close()
    with pytest.raises(Retryable):
        await store.put("a", b"1")


async def test_the_file_is_private(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "record.db")
    assert (tmp_path / "record.db").stat().st_mode & 0o777 == 0o600
    await store.close()
