"""`edgelet store export | import | check | migrate | forget-cluster`: the record without the agent.

Export and check read the file beside a running agent; the others want it for themselves and say so. An export is one
JSON object a line. Secrets and tokens are left out of it unless asked for, and are sealed even then unless that is
asked for too.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TextIO

from agent.clock import SystemClock
from agent.config import Settings
from agent.errors import ConfigError, Permanent, Retryable
from agent.store import schema, sqlite_file
from agent.store.address import StoreAddress, parse
from agent.store.base import BATCH_LIMIT, CLUSTER, Put, Row, Store
from agent.store.opening import local_path, make_sealer, store_address
from agent.store.remote import Remote, connect
from agent.store.seal import Sealer, Unreadable, is_sealed
from agent.store.sealed import ASIDE, must_be_sealed
from agent.store.sqlite import SqliteStore
from agent.store.write_behind import FILLED_FROM, WriteBehind

FORMAT = 1


def run(settings: Settings, asked: Mapping[str, Any]) -> int:
    """The exit code. Raises ConfigError, Permanent, Retryable."""
    match asked["store_command"]:
        case "export":
            if asked["unsealed"] and not asked["with_secrets"]:
                raise ConfigError("--unsealed goes with --with-secrets")
            return _export(settings, sys.stdout, with_secrets=asked["with_secrets"], unsealed=asked["unsealed"])
        case "import":
            return asyncio.run(_import(settings, Path(asked["file"])))
        case "check":
            return asyncio.run(_check(settings))
        case "migrate":
            try:
                target = parse(asked["to"])
            except ValueError as error:
                raise ConfigError(f"--to: {error}") from error
            return asyncio.run(_migrate(settings, target))
        case "forget-cluster":
            return asyncio.run(_forget_cluster(settings))
        case _:
            raise ConfigError("edgelet store wants one of export, import, check, migrate, forget-cluster")


# ---------------------------------------------------------------- export


def _export(settings: Settings, out: TextIO, *, with_secrets: bool, unsealed: bool) -> int:
    path = local_path(settings, store_address(settings))
    sealer = make_sealer(settings)
    head = {"edgelet": "record", "format": FORMAT, "node": settings.node_name}
    out.write(json.dumps(head) + "\n")
    left_out = 0
    with closing(_reading(path)) as db:
        for row in _rows(db, path):
            secret = must_be_sealed(row.key.removeprefix(ASIDE))
            if secret and not with_secrets:
                left_out += 1
                continue
            out.write(json.dumps(_line(row, sealer, secret=secret, unsealed=unsealed), ensure_ascii=False) + "\n")
    if left_out:
        print(f"{left_out} Secrets and tokens are left out: --with-secrets", file=sys.stderr)
    return 0


def _line(row: Row, sealer: Sealer, *, secret: bool, unsealed: bool) -> dict[str, Any]:
    value = row.value
    if secret and unsealed and is_sealed(value):
        try:
            value = sealer.unseal(row.key, value)
        except Unreadable as error:
            raise Permanent("Unreadable", f"row {row.key} cannot be read with {sealer.where}: {error}") from error
    elif secret and not unsealed and not is_sealed(value):
        value = sealer.seal(row.key, value)
    line: dict[str, Any] = {"key": row.key, "revision": row.revision}
    try:
        return line | {"value": value.decode()} if not is_sealed(value) else line | {"sealed": _text(value)}
    except UnicodeDecodeError:
        return line | {"base64": _text(value)}


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


# ---------------------------------------------------------------- import


async def _import(settings: Settings, file: Path) -> int:
    where = store_address(settings)
    sealer = make_sealer(settings)
    rows = list(await asyncio.to_thread(_read_lines, file))
    puts = [await asyncio.to_thread(_sealed_put, row, sealer) for row in rows]
    store = await SqliteStore.open(local_path(settings, where), outbox=where.remote, wait_s=0)
    try:
        await _write(store, puts)
    finally:
        await store.close()
    print(f"{len(puts)} rows were taken into {where}{_later(where)}")
    return 0


def _read_lines(file: Path) -> Iterator[Put]:
    name = "standard input" if str(file) == "-" else str(file)
    try:
        lines = (sys.stdin if str(file) == "-" else file.open(encoding="utf-8")).read().splitlines()
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not an export of a record") from error
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
            if number == 1:
                if line["edgelet"] != "record" or line["format"] != FORMAT:
                    raise ValueError(line)
                continue
            yield Put(line["key"], _value(line))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{name}: line {number} is not of an export of a record") from error
    if not lines:
        raise ConfigError(f"{name}: not an export of a record")


def _value(line: dict[str, Any]) -> bytes:
    if "value" in line:
        return str(line["value"]).encode()
    return base64.b64decode(line["sealed"] if "sealed" in line else line["base64"], validate=True)


def _sealed_put(row: Put, sealer: Sealer) -> Put:
    if not must_be_sealed(row.key):
        return row
    if not is_sealed(row.value):
        return Put(row.key, sealer.seal(row.key, row.value))
    try:
        sealer.unseal(row.key, row.value)
    except Unreadable as error:
        raise Permanent("Unreadable", f"row {row.key} cannot be read with {sealer.where}: {error}") from error
    return row


# ---------------------------------------------------------------- forget-cluster


async def _forget_cluster(settings: Settings) -> int:
    where = store_address(settings)
    path = local_path(settings, where)
    if not path.exists():
        raise ConfigError(f"there is no record {path}")
    store = await SqliteStore.open(path, outbox=where.remote, wait_s=0)
    try:
        known = await store.get(CLUSTER) is not None
        await store.delete(CLUSTER)
    finally:
        await store.close()
    print("the cluster that answers next is this node's" if known else "no cluster is recorded")
    return 0


# ---------------------------------------------------------------- check


async def _check(settings: Settings) -> int:
    where = store_address(settings)
    path = local_path(settings, where)
    problems: list[str] = []
    with closing(_reading(path)) as db:
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            problems.append(f"the file is broken: {verdict}")
        try:
            rows = list(_rows(db, path, problems))
            (unsent,) = db.execute("SELECT count(*) FROM outbox").fetchone()
            version = schema.version_of(db, path)
        except sqlite3.Error as error:
            rows, unsent, version = [], 0, 0
            problems.append(f"the file is broken: {error}")
    size = sum(part.stat().st_size for part in path.parent.glob(path.name + "*") if not part.name.endswith(".lock"))
    print(f"{path}: schema {version}, {len(rows)} rows, {size / 1_048_576:.1f} MiB")
    for name, count in sorted(Counter(row.key.split("/")[0] for row in rows).items()):
        print(f"  {name}: {count}")
    problems += await asyncio.to_thread(_unreadable, rows, make_sealer(settings))
    if where.remote:
        problems += await _check_remote(await connect(where, settings.node_name), where, unsent)
    for problem in problems:
        print(f"problem: {problem}")
    return 1 if problems else 0


def _unreadable(rows: Iterable[Row], sealer: Sealer) -> list[str]:
    problems: list[str] = []
    for row in rows:
        if row.key.startswith(ASIDE):
            problems.append(f"row {row.key.removeprefix(ASIDE)} was set aside: its key is not {sealer.where}")
        elif must_be_sealed(row.key) and not is_sealed(row.value):
            problems.append(f"row {row.key} is not sealed yet: the next start seals it")
        elif must_be_sealed(row.key):
            try:
                sealer.unseal(row.key, row.value)
            except Unreadable as error:
                problems.append(f"row {row.key} cannot be read with {sealer.where}: {error}")
    return problems


async def _check_remote(remote: Remote, where: StoreAddress, unsent: int) -> list[str]:
    try:
        theirs = [row for row in await remote.list("") if row.key != FILLED_FROM]
        life = "the node's agent tells it that it lives" if await remote.alive() else "no agent tells it that it lives"
        print(f"{where}: {len(theirs)} rows, {unsent} changes not sent yet, {life}")
    except Retryable as error:
        return [f"{error} ({unsent} changes are not sent yet)"]
    finally:
        await remote.close()
    return []


# ---------------------------------------------------------------- migrate


async def _migrate(settings: Settings, target: StoreAddress) -> int:
    source = store_address(settings)
    here, there = local_path(settings, source), local_path(settings, target)
    if not here.exists():
        raise ConfigError(f"there is no record {here}")
    if source == target:
        raise ConfigError("--to is the record that is in use")
    store = await SqliteStore.open(here, outbox=source.remote or (target.remote and here == there), wait_s=0)
    try:
        if source.remote:
            await _synchronize(store, source, settings)
        if here != there:
            copy = await SqliteStore.open(there, outbox=target.remote, wait_s=0)
            try:
                if await copy.list(""):
                    raise ConfigError(f"there is a record {there} already: move it away first")
                await _write(copy, [Put(row.key, row.value) for row in await store.list("")])
                if target.remote:
                    await _synchronize(copy, target, settings)
            finally:
                await copy.close()
        elif target.remote:
            await _synchronize(store, target, settings)
        count = len(await store.list(""))
    finally:
        await store.close()
    print(f"{count} rows are in {target}; start the agent with --store and that URL from now on")
    return 0


async def _synchronize(local: SqliteStore, where: StoreAddress, settings: Settings) -> None:
    remote = await connect(where, settings.node_name)
    try:
        await WriteBehind(local, remote, str(where), SystemClock()).synchronize()
    finally:
        await remote.close()


async def _write(store: Store, puts: list[Put]) -> None:
    for start in range(0, len(puts), BATCH_LIMIT):
        await store.batch(puts[start : start + BATCH_LIMIT])


def _later(where: StoreAddress) -> str:
    return "; the agent sends them there when it runs" if where.remote else ""


# ---------------------------------------------------------------- reading beside an agent


def _reading(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise ConfigError(f"there is no record {path}")
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        schema.version_of(db, path)
    except sqlite3.Error as error:
        raise Permanent("Broken", f"the record {path} cannot be read: {error}") from error
    return db


def _rows(db: sqlite3.Connection, path: Path, problems: list[str] | None = None) -> Iterator[Row]:
    """In order of key, as they are at one moment; a corrupt one is told, or an error where nobody listens."""
    for key, value, revision, kept in db.execute(f"{sqlite_file.ROWS} ORDER BY key"):
        if sqlite_file.checksum(key, value) == kept:
            yield Row(key, value, revision)
        elif problems is None:
            raise Permanent("Corrupt", f"row {key} of {path} is corrupt: see edgelet store check")
        else:
            problems.append(f"row {key} is corrupt: the next start drops it")
