"""Secrets and tokens are never on the disk in plain, and a lost key costs a refetch, not a start."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.store.base import Put
from agent.store.seal import CREDENTIAL, Sealer, Unreadable, is_sealed
from agent.store.sealed import ASIDE, SealedStore
from agent.store.sqlite import SqliteStore

SECRET = b'{"data": {"password": "hunter2-hunter2"}}'
ROW = "objects/secrets/shop/db"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "key"


async def opened(folder: Path, key_file: Path) -> SealedStore:
    inner = await SqliteStore.open(folder / "root" / "record.db")
    return await SealedStore.open(inner, Sealer(key_file), inner.scrub)


def everything_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_a_secret_is_read_back_and_is_not_in_the_file_or_its_log(tmp_path: Path, key_file: Path) -> None:
    store = await opened(tmp_path, key_file)
    await store.batch([Put(ROW, SECRET), Put("tokens/uid/default", b"eyJ-the-token"), Put("pods/a", b"a pod")])
    assert b"hunter2" not in everything_below(tmp_path / "root")
    assert b"eyJ-the-token" not in everything_below(tmp_path / "root")
    assert b"a pod" in everything_below(tmp_path / "root")
    row = await store.get(ROW)
    assert row is not None
    assert row.value == SECRET
    assert [row.value for row in await store.list("tokens/")] == [b"eyJ-the-token"]
    await store.close()
    store = await opened(tmp_path, key_file)
    assert [row.value for row in await store.list("objects/")] == [SECRET]
    await store.close()


async def test_the_key_file_is_private_and_made_when_first_needed(tmp_path: Path, key_file: Path) -> None:
    store = await opened(tmp_path, key_file)
    await store.put("pods/a", b"1")
    assert not key_file.exists()
    await store.put(ROW, SECRET)
    assert key_file.stat().st_mode & 0o777 == 0o600
    await store.close()


async def test_writes_that_arrive_together_make_one_key_and_keep_their_order(tmp_path: Path, key_file: Path) -> None:
    store = await opened(tmp_path, key_file)
    await asyncio.gather(
        *(store.put(f"tokens/{number}", b"x") for number in range(20)), store.put(ROW, SECRET), store.delete(ROW)
    )
    await store.close()
    store = await opened(tmp_path, key_file)
    assert len(await store.list("tokens/")) == 20
    assert await store.get(ROW) is None
    await store.close()


async def test_plain_rows_of_an_older_version_are_sealed_and_overwritten(tmp_path: Path, key_file: Path) -> None:
    plain = await SqliteStore.open(tmp_path / "root" / "record.db")
    await plain.put(ROW, SECRET)
    await plain.put(ROW, SECRET + b" ")
    await plain.close()
    assert b"hunter2" in everything_below(tmp_path / "root")

    store = await opened(tmp_path, key_file)
    assert b"hunter2" not in everything_below(tmp_path / "root")
    row = await store.get(ROW)
    assert row is not None
    assert row.value == SECRET + b" "
    await store.close()


async def test_rows_of_a_lost_key_are_set_aside_and_come_back_with_it(
    tmp_path: Path, key_file: Path, said: Callable[[], str]
) -> None:
    store = await opened(tmp_path, key_file)
    await store.put(ROW, SECRET)
    await store.put("objects/secrets/shop/other", SECRET)
    await store.close()
    key_file.rename(tmp_path / "elsewhere")

    store = await opened(tmp_path, key_file)
    assert await store.get(ROW) is None
    assert await store.list("objects/") == ()
    assert f"row {ROW} cannot be read with the key {key_file} (there is no key): set aside" in said()
    assert "hunter2" not in said()
    await store.put("objects/secrets/shop/other", b"fetched anew")
    await store.close()
    (tmp_path / "elsewhere").rename(key_file)

    store = await opened(tmp_path, key_file)
    row = await store.get(ROW)
    assert row is not None
    assert row.value == SECRET
    assert [row.key for row in await store.list(ASIDE)] == []
    # Sealed with the key that has gone again.
    assert await store.get("objects/secrets/shop/other") is None
    await store.close()


async def test_a_sealed_value_opens_in_its_own_row_only(key_file: Path) -> None:
    sealer = Sealer(key_file)
    sealed = sealer.seal("tokens/a", b"x")
    assert is_sealed(sealed)
    assert sealer.unseal("tokens/a", sealed) == b"x"
    with pytest.raises(Unreadable):
        sealer.unseal("tokens/b", sealed)
    with pytest.raises(Unreadable):
        sealer.unseal("tokens/a", sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with pytest.raises(Unreadable):
        sealer.unseal("tokens/a", sealed[:30])


async def test_two_values_that_are_equal_look_different_sealed(key_file: Path) -> None:
    sealer = Sealer(key_file)
    assert sealer.seal("tokens/a", b"x") != sealer.seal("tokens/a", b"x")


async def test_a_systemd_credential_is_the_key_where_there_is_one(tmp_path: Path, key_file: Path) -> None:
    (tmp_path / CREDENTIAL).write_bytes(b"k" * 32)
    sealer = Sealer(key_file, str(tmp_path))
    sealed = sealer.seal("tokens/a", b"x")
    assert not key_file.exists()
    assert Sealer(key_file, str(tmp_path)).unseal("tokens/a", sealed) == b"x"


@pytest.mark.parametrize(("content", "mode", "words"), [(b"short", 0o600, "5 bytes"), (b"k" * 32, 0o644, "chmod 600")])
async def test_a_key_that_cannot_be_used_is_a_config_error(
    key_file: Path, content: bytes, mode: int, words: str
) -> None:
    key_file.write_bytes(content)
    key_file.chmod(mode)
    with pytest.raises(ConfigError, match=words):
        Sealer(key_file).seal("tokens/a", b"x")


def test_two_that_seal_first_at_the_same_time_make_one_key(key_file: Path) -> None:
    sealer = Sealer(key_file)
    with ThreadPoolExecutor(8) as threads:
        sealed = list(threads.map(lambda _: sealer.seal(ROW, SECRET), range(8)))
    assert {Sealer(key_file).unseal(ROW, value) for value in sealed} == {SECRET}
