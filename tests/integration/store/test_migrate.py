"""`edgelet store` with a record on a server: moved there, looked at, and moved back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.cli import main
from agent.store.address import parse
from agent.store.base import Put
from agent.store.remote import connect
from agent.store.seal import Sealer
from agent.store.sealed import SealedStore
from agent.store.sqlite import SqliteStore
from hack.store_servers import MAKERS, PASSWORD, Server

SECRET = b"hunter2-hunter2"
NODE = "edge-moves"


def edgelet(*arguments: str, root: Path) -> int:
    return main(["store", *arguments, f"--root-dir={root}", f"--nodename={NODE}"])


async def fill(root: Path) -> None:
    inner = await SqliteStore.open(root / "record.db")
    store = await SealedStore.open(inner, Sealer(root.with_name(root.name + ".key")))
    await store.batch([Put(f"pods/api/{number}", b"x" * 1000) for number in range(90)])
    await store.batch([Put(f"status/{number}", b"x" * 1000) for number in range(90)])
    await store.put("objects/secrets/shop/db", SECRET)
    await store.close()


async def there(server: Server) -> dict[str, bytes]:
    remote = await connect(parse(server.url), NODE, {})
    rows = {row.key: row.value for row in await remote.list("")}
    await remote.close()
    return rows


@pytest.mark.parametrize("kind", list(MAKERS))
def test_a_record_moves_to_a_server_and_back(
    kind: str, own_server: Callable[[str], Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, root = own_server(kind), tmp_path / "root"
    asyncio.run(fill(root))
    assert edgelet("migrate", f"--to={server.url}", root=root) == 0
    rows = asyncio.run(there(server))
    assert len([key for key in rows if key.startswith(("pods/", "status/"))]) == 180
    assert SECRET not in rows["objects/secrets/shop/db"]

    assert edgelet("check", f"--store={server.url}", root=root) == 0
    assert "181 rows, 0 changes not sent yet" in capsys.readouterr().out

    back = tmp_path / "back" / "record.db"
    assert edgelet("migrate", f"--store={server.url}", f"--to=sqlite://{back}", root=root) == 0
    assert edgelet("check", f"--store=sqlite://{back}", root=root) == 0
    assert "objects: 1\n  pods: 90\n  status: 90" in capsys.readouterr().out

    server.kill()
    assert edgelet("check", f"--store={server.url}", root=root) == 1
    assert edgelet("migrate", f"--store={server.url}", f"--to=sqlite://{tmp_path}/x.db", root=root) == 1
    told = capsys.readouterr()
    assert "does not answer" in told.out
    assert "does not answer" in told.err
    assert PASSWORD not in told.out + told.err
