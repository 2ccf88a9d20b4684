"""`edgelet store`: exports without secrets, imports, checks, and a move to another place."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from agent.cli import main
from agent.store.base import CLUSTER, Put
from agent.store.seal import Sealer
from agent.store.sealed import SealedStore
from agent.store.sqlite import SqliteStore

POD = b'{"kind": "Pod"}'
SECRET = b"hunter2-hunter2"
BINARY = b"\xff\x00\x01"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The command's log goes to the stderr of its test, which ends with it."""
    yield
    logger.remove()


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root folder with a record in it."""

    async def fill() -> None:
        inner = await SqliteStore.open(tmp_path / "root" / "record.db")
        store = await SealedStore.open(inner, Sealer(tmp_path / "root.key"))
        await store.batch([Put("pods/api/a", POD), Put("objects/secrets/shop/db", SECRET), Put("other/x", BINARY)])
        await store.close()

    asyncio.run(fill())
    return tmp_path / "root"


def edgelet(*arguments: str, root: Path) -> int:
    return main(["store", *arguments, f"--root-dir={root}", "--nodename=edge-1"])


def content(root: Path) -> dict[str, bytes]:
    async def read() -> dict[str, bytes]:
        inner = await SqliteStore.open(root / "record.db")
        store = await SealedStore.open(inner, Sealer(root.with_name(root.name + ".key")))
        rows = {row.key: row.value for row in await store.list("")}
        await store.close()
        return rows

    return asyncio.run(read())


def test_an_export_has_no_secrets_unless_asked_for(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edgelet("export", root=machine) == 0
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[0] == {"edgelet": "record", "format": 1, "node": "edge-1"}
    assert [line["key"] for line in lines[1:]] == ["other/x", "pods/api/a"]
    assert lines[2]["value"] == POD.decode()
    assert "1 Secrets and tokens are left out" in err

    assert edgelet("export", "--with-secrets", root=machine) == 0
    out, _ = capsys.readouterr()
    assert "objects/secrets/shop/db" in out
    assert "hunter2" not in out

    assert edgelet("export", "--with-secrets", "--unsealed", root=machine) == 0
    assert "hunter2" in capsys.readouterr().out
    assert edgelet("export", "--unsealed", root=machine) == 2


@pytest.mark.parametrize("flags", [["--with-secrets"], ["--with-secrets", "--unsealed"]])
def test_an_import_takes_an_export_back(
    machine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    assert edgelet("export", *flags, root=machine) == 0
    file = tmp_path / "export.jsonl"
    file.write_text(capsys.readouterr().out)
    key = (tmp_path / "root.key").read_bytes()
    other = tmp_path / "other"
    if "--unsealed" not in flags:
        (tmp_path / "other.key").write_bytes(key)
        (tmp_path / "other.key").chmod(0o600)
    assert edgelet("import", str(file), root=other) == 0
    assert content(other) == {"pods/api/a": POD, "objects/secrets/shop/db": SECRET, "other/x": BINARY}
    assert SECRET not in (other / "record.db").read_bytes()


def test_sealed_rows_of_another_key_are_not_imported(
    machine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edgelet("export", "--with-secrets", root=machine) == 0
    file = tmp_path / "export.jsonl"
    file.write_text(capsys.readouterr().out)
    assert edgelet("import", str(file), root=tmp_path / "other") == 1
    assert "objects/secrets/shop/db cannot be read with" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "what?\n", "{}\n", '{"edgelet": "record", "format": 1}\n{"key": 1}\n'])
def test_what_is_no_export_is_refused(
    machine: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "export.jsonl"
    file.write_text(text)
    assert edgelet("import", str(file), root=machine) == 2
    assert "of a record" in capsys.readouterr().err
    assert len(content(machine)) == 3


def test_a_good_record_passes_the_check(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edgelet("check", root=machine) == 0
    out = capsys.readouterr().out
    assert "3 rows" in out
    assert "pods: 1" in out


def test_the_check_tells_what_is_wrong(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = sqlite3.connect(machine / "record.db")
    db.execute("UPDATE rows SET value = x'00' WHERE key = 'pods/api/a'")
    db.commit()
    db.close()
    machine.with_name("root.key").unlink()
    assert edgelet("check", root=machine) == 1
    out = capsys.readouterr().out
    assert "problem: row pods/api/a is corrupt" in out
    assert "problem: row objects/secrets/shop/db cannot be read with" in out


def test_a_cluster_is_forgotten_and_its_pods_are_not(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def fill() -> None:
        store = await SqliteStore.open(machine / "record.db")
        await store.put(CLUSTER, b'{"service":"a"}')
        await store.close()

    before = content(machine)
    asyncio.run(fill())
    assert edgelet("forget-cluster", root=machine) == 0
    assert content(machine) == before
    assert edgelet("forget-cluster", root=machine) == 0
    assert capsys.readouterr().out == "the cluster that answers next is this node's\nno cluster is recorded\n"


def test_a_broken_file_is_told_by_the_check_and_left_alone(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (machine / "record.db").write_bytes(b"garbage" * 1000)
    assert edgelet("check", root=machine) == 1
    assert "not a database" in "".join(capsys.readouterr())
    assert (machine / "record.db").read_bytes() == b"garbage" * 1000


def test_a_record_moves_to_another_file(machine: Path, tmp_path: Path) -> None:
    there = tmp_path / "elsewhere" / "record.db"
    assert edgelet("migrate", f"--to=sqlite://{there}", root=machine) == 0
    copied = sqlite3.connect(there)
    keys = [key for (key,) in copied.execute("SELECT key FROM rows ORDER BY key")]
    copied.close()
    assert keys == ["objects/secrets/shop/db", "other/x", "pods/api/a"]
    assert edgelet("migrate", f"--to=sqlite://{there}", root=machine) == 2


def test_beside_a_running_agent_it_can_be_read_and_not_changed(
    machine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = asyncio.new_event_loop()
    agent = loop.run_until_complete(SqliteStore.open(machine / "record.db"))
    try:
        assert edgelet("export", root=machine) == 0
        file = tmp_path / "export.jsonl"
        file.write_text(capsys.readouterr().out)
        assert edgelet("check", root=machine) == 0
        for change in (["import", str(file)], ["migrate", f"--to=sqlite://{tmp_path}/x.db"]):
            assert edgelet(*change, root=machine) == 1
            assert "in use by another edgelet" in capsys.readouterr().err
    finally:
        loop.run_until_complete(agent.close())
        loop.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["migrate", "--to=mysql://x"], "--to: must begin with"),
        (["migrate", "--to=redis://u:hunter2@h:port"], "--to: a host or a port can't be read"),
        (["check", "--store=etcd://u:hunter2@h/x"], "--store: an etcd address has no path"),
        (["import", "/nowhere"], "/nowhere: No such file"),
        ([], "COMMAND"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["store", *arguments, *([f"--root-dir={tmp_path}"] if arguments else [])])
    err = capsys.readouterr().err
    assert code == 2
    assert len(err.splitlines()) == 1
    assert words in err
    assert "hunter2" not in err


def test_there_is_nothing_to_look_at_on_a_fresh_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edgelet("check", root=tmp_path) == 2
    assert "there is no record" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
