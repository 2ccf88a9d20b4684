"""The SQLite record: durable, revisioned, watched, and never stopped by a broken file."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from agent.errors import ConfigError, Retryable
from agent.store.base import Change, Delete, Put
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


async def test_a_watcher_sees_committed_changes_below_its_prefix_in_order(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "record.db")
    seen: list[Change] = []

    async def follow() -> None:
        async for change in store.watch("pods/"):
            seen.append(change)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(follow(), name="follow")
        await asyncio.sleep(0)
        await store.put("pods/a", b"1")
        await store.put("other", b"x")
        await store.delete("pods/a")
        await store.close()
    assert [(c.key, c.value) for c in seen] == [("pods/a", b"1"), ("pods/a", None)]


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
