"""`edgelet drain` and the agent it talks to, over the real socket."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from agent.cli import main
from agent.node.shutdown import Period, Shutdown
from agent.server.control import ControlServer, address_of
from tests.fakes.waiting import eventually

SET = (Period(0, 7), Period(2_000_000_000, 3))


class Agent:
    def __init__(self) -> None:
        self.orders: list[Sequence[Period]] = []
        self.undone = 0
        self.in_time = True
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.ended = 0

    async def begin(self, by: Sequence[Period], tell: Callable[[str], None]) -> bool:
        self.orders.append(by)
        tell("ending 1 pod")
        await self.goes_on.wait()
        tell("shop/web has ended")
        self.ended += 1
        return self.in_time

    def call_off(self) -> None:
        self.undone += 1


@asynccontextmanager
async def serving(root: Path) -> AsyncIterator[Agent]:
    agent = Agent()
    life = asyncio.ensure_future(ControlServer(root, cast(Shutdown, agent), SET).run())
    await eventually(lambda: listens(root / "agent.sock"))
    yield agent
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)


def listens(path: Path) -> bool:
    """It is bound before it listens."""
    with socket.socket(socket.AF_UNIX) as probe, address_of(path) as address:
        return probe.connect_ex(address) == 0


async def drain(root: Path, *flags: str) -> int:
    return await asyncio.to_thread(main, ["drain", f"--root-dir={root}", *flags])


async def test_a_drain_prints_progress_and_says_whether_all_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(tmp_path) as agent:
        assert stat.S_IMODE((tmp_path / "agent.sock").stat().st_mode) == 0o600
        assert await drain(tmp_path) == 0
        assert capsys.readouterr().out.splitlines() == ["ending 1 pod", "shop/web has ended"]
        agent.in_time = False
        assert await drain(tmp_path, "--grace-period=40s", "--critical-grace-period=5s") == 1
        assert await drain(tmp_path, "--undo") == 0
    assert agent.orders == [SET, (Period(0, 40), Period(2_000_000_000, 5))]
    assert agent.undone == 1
    assert not (tmp_path / "agent.sock").exists()


async def test_a_drain_goes_on_when_its_caller_is_gone(tmp_path: Path) -> None:
    async with serving(tmp_path) as agent:
        agent.goes_on.clear()
        _, writer = await asyncio.open_unix_connection(tmp_path / "agent.sock")
        writer.write(b"POST /drain HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        await eventually(lambda: agent.orders)
        writer.close()
        agent.goes_on.set()
        await eventually(lambda: agent.ended == 1)
        assert await drain(tmp_path, "--undo") == 0


async def test_a_socket_of_an_agent_that_was_killed_and_a_deep_folder_are_no_trouble(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    (deep / "agent.sock").touch()
    async with serving(deep) as agent:
        assert await drain(deep) == 0
    assert agent.ended == 1


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ([], 1, "no agent runs with the root folder"),
        (["--grace-period=soon"], 2, "--grace-period: 'soon' is no duration"),
        (["--undo", "--grace-period=5s"], 2, "--undo has no grace period"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], code: int, said: str
) -> None:
    assert main(["drain", f"--root-dir={tmp_path}", *flags]) == code
    assert said in capsys.readouterr().err
