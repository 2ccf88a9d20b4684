"""So many starts at once."""

from __future__ import annotations

import asyncio

import pytest

from agent.pods.turns import StartTurns
from agent.rush import Rush


async def test_no_more_at_once_than_there_are_turns_and_first_come_first_served() -> None:
    turns, begun, go = StartTurns(2, Rush()), list[int](), asyncio.Event()

    async def start(number: int) -> None:
        async with turns:
            begun.append(number)
            await go.wait()

    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(start(number))
        await asyncio.sleep(0)
        assert begun == [0, 1]
        go.set()
    assert begun == [0, 1, 2, 3]


async def test_who_gave_up_is_in_the_rush_no_more() -> None:
    rush = Rush()
    turns = StartTurns(1, rush)
    async with turns:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0), turns:
                pass
        assert turns.rush, "one gave up, one still has its turn"
    assert not turns.rush
